"""The code of docs/other_tools.md runs as it stands."""

from __future__ import annotations

import re
import shutil

import numpy as np
from PIL import Image

from tests.conftest import ROOT
from tests.extras import needs
from tests.prediction.running import noise

BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "other_tools.md").read_text(encoding="utf-8"), re.M | re.DOTALL
)


@needs("supervision", "sahi")
def test_the_code_of_the_page(weights, tmp_path, monkeypatch):
    shutil.copyfile(weights, tmp_path / "conditional_sr_yolo_jointly_tuned.pth")
    Image.fromarray(noise(40, 80, 3)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in BLOCKS:
        exec(compile(block, "docs/other_tools.md", "exec"), names)
    np.testing.assert_allclose(names["detections"].xyxy, names["result"].boxes.xyxy)
    assert len(BLOCKS) == 2 and names["sliced"].image_width == 80
