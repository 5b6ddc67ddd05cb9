"""The native kernels as this machine has them and in portable vectors, each compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

import deployment.native.build as native_build
import deployment.native_execution as native_execution
from deployment.native.build import NativeError
from tests.deployment.native.int8_libraries import int8_library
from tests.deployment.native_networks import native_of
from tests.deployment.portable_kernel import LIBRARY, compile_portable


@pytest.fixture(scope="session")
def portable_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both entry points, for any CPU."""
    return compile_portable(tmp_path_factory.mktemp("portable") / "block_sparse.so", *LIBRARY)


@pytest.fixture(scope="session")
def native_int8_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 kernel as this machine has it."""
    return int8_library("native", tmp_path_factory.mktemp("native_int8"))


@pytest.fixture(scope="module", params=["avx512", "portable"])
def library(request, tmp_path_factory):
    """The library of this machine, built here if it was not at set-up; and the one in portable vectors."""
    native_of.cache_clear()
    if request.param == "portable":
        return request.getfixturevalue("portable_library")
    try:
        return native_build.find_library()
    except NativeError:
        pass
    try:
        return native_build.build(folder=tmp_path_factory.mktemp("native"))
    except NativeError as error:
        pytest.skip(f"no native kernel: {error}")


@pytest.fixture
def kernel(library, request, monkeypatch):
    monkeypatch.setattr(native_execution, "find_library", lambda: library)
    if request.node.callspec.params["library"] == "portable":
        monkeypatch.setattr(native_execution, "cpu_flags", lambda: native_build.NEEDED | {"avx512_bf16"})
