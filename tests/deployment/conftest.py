"""The native kernel in portable vectors, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployment.native.int8_libraries import int8_library
from tests.deployment.portable_kernel import LIBRARY, compile_portable


@pytest.fixture(scope="session")
def portable_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both entry points, for any CPU."""
    return compile_portable(tmp_path_factory.mktemp("portable") / "block_sparse.so", *LIBRARY)


@pytest.fixture(scope="session")
def native_int8_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 kernel as this machine has it."""
    return int8_library("native", tmp_path_factory.mktemp("native_int8"))
