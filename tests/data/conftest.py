"""A folder of three pictures of random pixels, of different sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.drawn_pairs import save


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for number, (height, width) in enumerate(((41, 50), (32, 32), (60, 39))):
        save(tmp_path / "hr" / f"sub{number % 2}" / f"{number}.png", height, width)
    return tmp_path / "hr"
