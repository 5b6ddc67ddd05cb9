"""The Python code of the pages runs as it stands."""

from __future__ import annotations

import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.detector_yolo import YoloDetector
from tests.conftest import ROOT
from tests.prediction.running import noise

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

PAGES = {page: BLOCK.findall((ROOT / page).read_text(encoding="utf-8")) for page in ("README.md", "docs/python_api.md")}


@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if blocks])
def test_the_code_of_a_page(weights, tmp_path, monkeypatch, page: str):
    """Blocks build on each other; paths are those of a folder with weights, an image and images."""
    trained = tmp_path / "runs" / "stage3"
    trained.mkdir(parents=True)
    for folder in (tmp_path, trained):
        shutil.copyfile(weights, folder / "conditional_sr_yolo_jointly_tuned.pth")
    torch.save(YoloDetector("yolo11n.yaml", tuple(map(str, range(80)))).net.state_dict(), tmp_path / "yolo11n.pt")
    (tmp_path / "images").mkdir()
    for name, size in (("image.png", (17, 23)), ("images/a.png", (20, 24)), ("images/b.png", (20, 24))):
        Image.fromarray(noise(*size, 3)).save(tmp_path / name)
    (tmp_path / "images" / "c.png").write_text("no image")
    monkeypatch.chdir(tmp_path)
    names: dict = {"ROOT": str(ROOT)}
    blocks = PAGES[page]
    with pytest.warns(UserWarning, match="left out") if "on_bad_image" in "".join(blocks) else nullcontext():
        for block in blocks:
            exec(compile(block, page, "exec"), names)
    if page.startswith("docs"):
        assert Path("found.png").is_file() and names["sr"].shape == (34, 46, 3) and names["sr"].dtype == np.uint8
        assert names["model"].names == {0: "cat", 1: "dog"} and names["result"].patch_mask.shape == (5, 6)
