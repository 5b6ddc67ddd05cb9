"""Runs of inference.py: systems worth running, images and videos of noise, and what a run left behind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

import inference
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.execution import Execution
from models.mask_policy import parse_policy
from models.masker import Masker
from models.system import ConditionalSRDetector
from tests.small_yolo import SMALL_YOLO
from utils.checkpoint import save_network

NAMES = ("cat", "dog")


def liven_up(system: ConditionalSRDetector) -> None:
    """Give random weights outputs worth looking at: some detections, and masks of both kinds."""
    detector, images = system.detector, torch.rand(4, 3, 48, 48)
    sr = system.eval().super_resolve(images, parse_policy("all_fast")).sr
    norms = [m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # plain average, so that one batch sets the statistics
    with torch.no_grad():
        detector.train().raw(sr)
        raw = detector.eval().raw(sr)
        scores = raw.get("one2many", raw)["scores"]
        for branch in detector.head.cv3:
            branch[-1].weight.mul_(1.5 / scores.std())
            branch[-1].bias.fill_(-2.0)
        masker = system.front.masker
        masker.logits.weight.normal_()
        logits = masker.eval()(images)
        masker.calibrate(logits[:, 1] - logits[:, 0], 0.5)


def save_small(path: Path, model: str | dict = SMALL_YOLO) -> Path:
    """A small x4 system with a masker."""
    torch.manual_seed(0)
    quality = build_sr("edsr", 4, {"n_blocks": 1, "n_feats": 8})
    front = ConditionalSR(Masker(4, 4), build_sr("espcn", 4), quality, Execution(halo=1))
    system = ConditionalSRDetector(front, YoloDetector(model, NAMES))
    liven_up(system)
    save_network(path, "system", system.spec["name"], system.spec["args"], system.state_dict(), {})
    return path


def save_plain(path: Path, front: torch.nn.Module) -> Path:
    system = ConditionalSRDetector(front, YoloDetector(SMALL_YOLO, NAMES))
    save_network(path, "system", system.spec["name"], system.spec["args"], system.state_dict(), {})
    return path


def noise(*shape: int, seed: int = 0, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def draw_video(path: Path, frames: int, height: int = 18, width: int = 22) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (width, height))
    for index in range(frames):
        writer.write(noise(height, width, 3, seed=index))
    writer.release()


def spoil(folder: Path) -> None:
    """Add three files that cannot be read."""
    Image.fromarray(noise(40, 40, 3)).save(folder / "corrupt.jpg")
    whole = (folder / "corrupt.jpg").read_bytes()
    (folder / "corrupt.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("this is a text")
    (folder / "broken.mp4").write_bytes(b"no video")


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def infer(weights: Path, source, out: Path, *options: str) -> int:
    argv = ["--weights", str(weights), "--source", str(source), "--out", str(out), "--device", "cpu", *options]
    return inference.main(argv)


def entries(out: Path) -> dict[str, dict]:
    return {entry["file"]: entry for entry in json.loads((out / "predictions.json").read_text())}
