"""The picture of the app is taken in a real browser, and that of the README is small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.extras import needs_browser, needs_extra
from tests.prediction.running import save_small
from tools import app_picture


@pytest.mark.slow
@needs_extra("app")
@needs_browser
def test_a_picture_is_taken(tmp_path: Path):
    weights = save_small(tmp_path / "system.pth")
    assert app_picture.main(["--weights", str(weights), "--out", str(tmp_path / "a" / "app.png")]) == 0
    picture = np.asarray(Image.open(tmp_path / "a" / "app.png").convert("RGB"))
    assert picture.shape[1] > 1000 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_the_readmes_picture():
    assert (ROOT / "docs" / "pictures" / "app.png").stat().st_size < 500_000
