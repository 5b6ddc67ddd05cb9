"""Builds the optional native kernel for this machine: `python -m deployment.native.build`.

The library's name says for which source and which CPU it was built, so a stale one or one of another machine is never
loaded. Where there is no compiler or no AVX-512, one line says so and the project goes on without it.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCE, HEADER = FOLDER / "block_sparse.cpp", FOLDER / "job.h"
COMPILER = "g++"
FLAGS = ["-std=c++17", "-O3", "-march=native", "-fno-strict-aliasing", "-fopenmp", "-shared", "-fPIC"]
NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma"}


class NativeError(RuntimeError):
    """There is no native kernel here; the message says why."""


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets of this CPU, empty where the system does not say."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())


def library_path(folder: Path = FOLDER) -> Path:
    """Where the library for the present source and CPU is, or would be.

    Raises:
        NativeError: the CPU lacks instructions that the source needs.
    """
    flags = cpu_flags()
    if not flags >= NEEDED:
        raise NativeError("the CPU has no AVX-512")
    parts = [SOURCE.read_bytes(), HEADER.read_bytes(), " ".join(FLAGS).encode(), " ".join(sorted(flags)).encode()]
    return folder / f"{SOURCE.stem}-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.so"


def find_library(folder: Path = FOLDER) -> Path:
    """The library for the present source and CPU.

    Raises:
        NativeError: it was not built.
    """
    path = library_path(folder)
    if path.exists():
        return path
    other = any(folder.glob(f"{SOURCE.stem}-*.so"))
    state = "built from another source or on another CPU" if other else "not built"
    raise NativeError(f"the native kernel was {state}: python -m deployment.native.build")


def build(folder: Path = FOLDER) -> Path:
    """Compile the source for this CPU, unless that was done; libraries of other sources or CPUs are deleted.

    Raises:
        NativeError: no AVX-512, no compiler, or it fails.
    """
    path = library_path(folder)
    if not path.exists():
        part = path.with_suffix(".part")
        try:
            command = [COMPILER, *FLAGS, "-o", str(part), str(SOURCE)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NativeError(f"{COMPILER}: {error}") from error
        if done.returncode:
            raise NativeError(f"{COMPILER}: {(done.stderr.strip() or 'failed').splitlines()[0]}")
        part.replace(path)
    for other in folder.glob(f"{SOURCE.stem}-*.so"):
        if other != path:
            other.unlink()
    return path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    try:
        print(f"native kernel: {build()}")
    except NativeError as error:
        print(f"no native kernel ({error}); the project goes on with PyTorch alone", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
