"""Builds the optional native kernels for this machine: `python -m deployment.native.build`.

A library's name says for which source and which CPU it was built, so a stale one or one of another machine is never
loaded. Where there is no compiler or no AVX-512 (which int8 does not need), one line says so and the project goes on
without it.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
COMPILER = "g++"
# Without fused multiply-add where the compiler likes: int8 gives the same bytes everywhere.
FLAGS = [
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fopenmp",
    "-shared",
    "-fPIC",
]
NEEDED = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "fma"})


@dataclass(frozen=True)
class Library:
    """What a library is made of.

    Args:
        name: for messages.
        source: file to compile.
        headers: that it includes.
        needed: instruction sets of the CPU.
    """

    name: str
    source: Path
    headers: tuple[Path, ...]
    needed: frozenset[str] = frozenset()


HEADERS = (FOLDER / "job.h", FOLDER / "runs.h", FOLDER / "tiles.h")  # of both
FLOATS = Library("native kernel", FOLDER / "block_sparse.cpp", HEADERS, NEEDED)
INT8 = Library("native int8 kernel", FOLDER / "int8.cpp", (FOLDER / "int8.h", FOLDER / "products.h", *HEADERS))


class NativeError(RuntimeError):
    """There is no native kernel here; the message says why."""


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets of this CPU, empty where the system does not say."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())


def library_path(library: Library = FLOATS, folder: Path = FOLDER) -> Path:
    """Where the library for the present source and CPU is, or would be.

    Raises:
        NativeError: the CPU lacks instructions that the source needs.
    """
    flags = cpu_flags()
    if not flags >= library.needed:
        raise NativeError("the CPU has no AVX-512")
    made_of = [file.read_bytes() for file in (library.source, *library.headers)]
    parts = [*made_of, *(" ".join(words).encode() for words in (FLAGS, [platform.machine()], sorted(flags)))]
    return folder / f"{library.source.stem}-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:16]}.so"


def find_library(library: Library = FLOATS, folder: Path = FOLDER) -> Path:
    """The library for the present source and CPU.

    Raises:
        NativeError: it was not built.
    """
    path = library_path(library, folder)
    if path.exists():
        return path
    other = any(folder.glob(f"{library.source.stem}-*.so"))
    state = "built from another source or on another CPU" if other else "not built"
    raise NativeError(f"the {library.name} was {state}: python -m deployment.native.build")


def build(library: Library = FLOATS, folder: Path = FOLDER) -> Path:
    """Compile the source for this CPU, unless that was done; libraries of other sources or CPUs are deleted.

    Raises:
        NativeError: no AVX-512, no compiler, or it fails.
    """
    path = library_path(library, folder)
    if not path.exists():
        part = path.with_suffix(".part")
        try:
            command = [COMPILER, *FLAGS, "-o", str(part), str(library.source)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NativeError(f"{COMPILER}: {error}") from error
        if done.returncode:
            raise NativeError(f"{COMPILER}: {(done.stderr.strip() or 'failed').splitlines()[0]}")
        part.replace(path)
    for other in folder.glob(f"{library.source.stem}-*.so"):
        if other != path:
            other.unlink()
    return path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    built = 0
    for library in (FLOATS, INT8):
        try:
            print(f"{library.name}: {build(library)}")
            built += 1
        except NativeError as error:
            print(f"no {library.name} ({error}); the project goes on with PyTorch alone", file=sys.stderr)
    return 0 if built else 1


if __name__ == "__main__":
    sys.exit(main())
