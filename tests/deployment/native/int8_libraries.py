"""The int8 kernel as this machine has it, in plain C++, and for VNNI and AMX with portable code in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployment.native.build import INT8, NativeError, build, find_library
from tests.deployment.portable_kernel import AMX, compile_portable

WAYS = ("native", "plain", "vnni", "amx")
FAST = ["-O1", "-shared", "-fPIC"]
VECTORS = ["-D__AVX512VNNI__", "-D__AVX512F__", "-fdisable-tree-cunroll", "-fdisable-tree-cunrolli"]
FLAGS = {
    "plain": ["-march=x86-64"],
    "vnni": VECTORS,
    "amx": [*VECTORS, *AMX],
}


def int8_library(way: str, folder: Path) -> Path:
    """The library of one of WAYS; skips the test where there is no compiler."""
    if way != "native":
        return compile_portable(folder / f"{way}.so", *FAST, *FLAGS[way], library=INT8)
    try:
        return find_library(INT8)
    except NativeError:
        pass
    try:
        return build(INT8, folder)
    except NativeError as error:
        pytest.skip(f"no native int8 kernel: {error}")
