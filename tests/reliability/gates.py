"""What reads other people's files, for fuzzing: name of the file, reader, and good contents to begin with."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from configs.schema import Stage2Config
from data.images import inspect_image
from tests.reliability.test_corpora import PIXELS, image_bytes, read_labels
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "configuration": ("a.yaml", lambda path: load_config(Stage2Config, path)),
    "label file": ("a.txt", read_labels),
    "checkpoint": ("a.pth", load_checkpoint),
    "image gate": ("a.png", lambda path: inspect_image(path, PIXELS, decode=True)),
}


def seeds(gate: str, folder: Path) -> list[bytes]:
    """Good contents; `folder` is written to."""
    if gate == "configuration":
        return [(CONFIGS / "stage2_sr_pretrain.yaml").read_bytes(), b"scale: 2\nrun: {seed: 1}\n"]
    if gate == "label file":
        return [b"0 0.5 0.5 0.25 0.25\n", b"1 0.1 0.1 0.2 0.2\n0 0.2 0.2 0.4 0.2 0.4 0.4\n"]
    if gate == "checkpoint":
        save_checkpoint(folder / "whole.pth", {"kind": "sr", "name": "espcn", "args": {"scale": 2}, "meta": {}})
        return [(folder / "whole.pth").read_bytes()]
    return [image_bytes(kind, "RGB", random.Random(0)) for kind in ("PNG", "JPEG", "TIFF", "WEBP")]
