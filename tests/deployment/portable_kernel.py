"""Compiles the native kernels with portable code in place of AVX-512 and AMX: any machine with g++ tests them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from deployment.native.build import COMPILER, FLOATS, FOLDER, Library

HERE = Path(__file__).parent / "native"
# No fused multiply-add where the compiler likes: every build then gives the same bits.
FLAGS = ["-std=c++17", "-ffp-contract=off", "-fno-strict-aliasing", "-fopenmp", "-Wno-psabi", "-march=native"]
FLAGS += ["-U__AMX_TILE__", "-U__AMX_INT8__", "-U__AMX_BF16__"]
AMX = ["-D__AMX_TILE__", "-D__AMX_INT8__", "-D__AMX_BF16__"]  # with portable code in its place too
# Unrolled loops in registers that the CPU lacks take long to compile and are no faster.
LIBRARY = ["-O1", "-fdisable-tree-cunroll", "-fdisable-tree-cunrolli", "-shared", "-fPIC"]
SANITIZED = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def compile_portable(output: Path, *arguments: str, library: Library = FLOATS) -> Path:
    """Compile a kernel, with more flags or sources; skips the test where there is no compiler."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no {COMPILER}: apt-get install g++")
    includes = [f"-I{HERE / 'portable'}", f"-I{FOLDER}"]
    command = [COMPILER, *FLAGS, *arguments, *includes, "-o", str(output), str(library.source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:4000]}"
    return output


def skip_without_sanitizers(folder: Path) -> None:
    """Skips the test where g++ cannot link and start a program with both sanitizers."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"no {COMPILER}: apt-get install g++")
    program, source = folder / "empty", folder / "empty.cpp"
    source.write_text("int main() {}\n")
    done = subprocess.run([COMPILER, *SANITIZED, "-o", str(program), str(source)], capture_output=True, text=True)
    if done.returncode or subprocess.run([program], capture_output=True).returncode:
        pytest.skip(f"{COMPILER} has no AddressSanitizer and UBSan here: apt-get install g++ libasan8 libubsan1")
