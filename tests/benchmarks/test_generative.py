"""The benchmark of diffusion systems at toy size: rows, resuming, the page, and the published page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from benchmarks.generative import RESULTS, main
from evaluation.generative_report import page
from evaluation.sr_evaluation import SREvaluation
from models import build_sr
from tests.drawn import draw_photographs
from tools.publish_weights import to_safetensors
from utils.errors import UserError

CARD = """| network | something |
| data | photographs, LR by bicubic |
| protocol | `stage2_pretrain_sr.py`, L1, seed 3 |
| training | 9.4 min, some processor |

```
python stage2_pretrain_sr.py --data.train datasets/photographs
python evaluate.py sr --weights a.pth
```
"""


def save(path: Path, name: str, args: dict) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(to_safetensors(build_sr(name, 4, args)))
    return path


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    for folder, size in (("hit_uav/images/test", (44, 52)), ("rsscn7/test", (52, 44))):
        draw_photographs(tmp_path / "data" / folder, images=2, size=size)
    baseline = save(tmp_path / "baselines" / "small_espcn.safetensors", "espcn", {"n_feats": 4})
    baseline.with_suffix(".md").write_text(CARD)
    system = save(tmp_path / "systems" / "small_lte.safetensors", "lm_lte", {"n_blocks": 1, "n_feats": 4})
    sizes = ["--rounds=1", "--output=128", "--lr=32", "--patch=8"]
    folders = [f"--data={tmp_path / 'data'}", f"--baselines={tmp_path / 'baselines'}", f"--systems={system}"]
    return [*folders, *sizes, f"--json={tmp_path / 'out' / 'generative.json'}"]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_rows_page_and_resuming(options: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.setattr("evaluation.sr_evaluation.gmacs", lambda candidate, scale: 1.5)  # takes seconds
    file = tmp_path / "out" / "generative.json"
    assert main(options) == 0
    results = json.loads(file.read_text())
    where = [(row["dataset"], row["scale"], row["network"]) for row in results["quality"]]
    assert where == [
        ("HIT-UAV", 4, "bicubic"), ("HIT-UAV", 4, "small_espcn"), ("HIT-UAV", 4, "small_lte"),
        ("RSSCN7", 2, "bicubic"), ("RSSCN7", 2, "small_lte"),
        ("RSSCN7", 2.6, "bicubic"), ("RSSCN7", 2.6, "small_lte"),
        ("RSSCN7", 4, "bicubic"), ("RSSCN7", 4, "small_espcn"), ("RSSCN7", 4, "small_lte"),
    ]  # fmt: skip
    assert all(row["psnr_y"] > 10 and row["ms"] > 0 and row["images"] == 2 for row in results["quality"])
    (memory,), (conditional,) = results["memory"], results["conditional"]
    assert memory["output"] == [128, 128] and memory["peak_mb"] >= memory["rest_mb"] > 50
    assert conditional["patches"] == 16 and conditional["kept"] == pytest.approx(2 / 16)
    assert conditional["to_all"] == pytest.approx(conditional["tenth_ms"] / conditional["all_ms"])
    trained = results["networks"]["small_espcn"]
    assert trained["training"] == "9.4 min, some processor" and trained["protocol"].endswith("seed 3")
    assert trained["command"] == "python stage2_pretrain_sr.py --data.train datasets/photographs"
    text = file.with_suffix(".md").read_text()
    assert text == page(results) and "9.4 min, some processor" in text and str(tmp_path) not in text + file.read_text()

    def refuse(*args):
        raise AssertionError("measured again")

    monkeypatch.setattr(SREvaluation, "rows", refuse)
    assert main(options) == 0 and json.loads(file.read_text())["quality"] == results["quality"]
    save(tmp_path / "baselines" / "small_espcn.safetensors", "espcn", {"n_feats": 6})
    with pytest.raises(AssertionError, match="measured again"):
        main(options)


def test_a_missing_folder_or_file_is_named(options: list[str], tmp_path: Path):
    with pytest.raises(UserError, match=r"no weight file: .*gone\.safetensors"):
        main([*options, f"--systems={tmp_path / 'gone.safetensors'}"])
    with pytest.raises(SystemExit):
        main(["--parts", "quality"])


@pytest.mark.skipif(not RESULTS.is_file(), reason="the diffusion systems are not measured yet")
def test_the_published_page_is_made_of_its_results():
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == page(results)
    assert not re.search(r"(?<![\w.])/\w+/", RESULTS.read_text(encoding="utf-8"))  # no path of the machine
