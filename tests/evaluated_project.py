"""A drawn data set with checkpoints of stage 1 and stage 3, of every kind that evaluate.py makes rows of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

import stage3_finetune_joint as stage3
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.masker import Masker
from models.single_sr import SingleSR
from models.system import ConditionalSRDetector
from tests.drawn import draw_detection_set
from tests.test_evaluate import TINY, save, talkative_detector

SLICED = {"weights": "", "rows": 2, "columns": 2, "overlap": 0.2, "full": True}


def conditional(seed: int) -> ConditionalSRDetector:
    torch.manual_seed(seed)
    masker = Masker(8, bias=0.0)
    with torch.no_grad():
        masker.logits.weight.normal_()
    fast, quality = build_sr("espcn", 2), build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8})
    front = ConditionalSR(masker, fast, quality, Execution(halo=2))
    return ConditionalSRDetector(front, talkative_detector())


@dataclass(frozen=True)
class Project:
    """A drawn data set, scale 2, canvas 64, with checkpoints of stage 1 and stage 3."""

    folder: Path
    data: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / f"{name}.pth")

    def arguments(self, out: Path, **options) -> list[str]:
        common = {"run.out": out, "run.device": "cpu", "run.workers": 0, "data.yaml": self.data, "data.imgsz": 64}
        common |= {"data.scale": 2, "budgets": [0.25, 0.5], "batch": 3, "timing_runs": 0, "overlays": 1}
        texts = {key: json.dumps(v) if isinstance(v, dict | list) else v for key, v in (common | options).items()}
        return [f"--{key}={value}" for key, value in texts.items()]

    def train(self, name: str, *options: str) -> None:
        """One epoch of stage 3 in mode detector_only."""
        out = self.folder / name
        model = self.folder / "tiny.yaml"
        model.write_text(yaml.safe_dump(TINY))
        arguments = [
            f"--run.out={out}", "--run.device=cpu", "--run.workers=0", f"--data.yaml={self.data}", "--data.imgsz=64",
            "--data.scale=2", "--mode=detector_only", f"--detector.model={model}", "--optim.epochs=1",
            "--optim.batch=4", "--val_images=1", *options,
        ]  # fmt: skip
        assert stage3.main(arguments) == 0
        (out / stage3.OUTPUT).rename(self[name])


def make_project(folder: Path) -> Project:
    made = Project(folder, draw_detection_set(folder / "set", images=4, size=(48, 64)))
    save(folder / "joint.pth", "system", conditional(0))
    save(folder / "frozen.pth", "system", conditional(1))
    save(folder / "detector.pth", "detector", talkative_detector())
    save(folder / "espcn.pth", "system", ConditionalSRDetector(SingleSR(build_sr("espcn", 2)), talkative_detector()))
    made.train("hr", "--sr=hr")
    made.train("double", "--sr=bicubic", "--upscale=2")
    return made


def by_name(results: dict) -> dict[str, dict]:
    return {row["name"]: row for row in results["rows"]}
