"""The native kernel in portable vectors, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployment.portable_kernel import LIBRARY, compile_portable


@pytest.fixture(scope="session")
def portable_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both entry points, for any CPU."""
    return compile_portable(tmp_path_factory.mktemp("portable") / "block_sparse.so", *LIBRARY)
