"""A detector with the strides of Ultralytics' own (8 to 32) in few layers, for tests of what lies around one."""

from __future__ import annotations

from pathlib import Path

import yaml

SMALL_YOLO = {
    "nc": 2,
    "backbone": [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 8, 16, 16, 16)] + [[-1, 1, "C2f", [16, True]]],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 3], 1, "Concat", [1]],
        [-1, 1, "C2f", [16]],
        [[2, 8, 5], 1, "Detect", ["nc"]],
    ],
}


def write_small_yolo(folder: Path, **keys) -> Path:
    """small_yolo.yaml in that folder, with further keys of a model YAML."""
    (folder / "small_yolo.yaml").write_text(yaml.safe_dump(SMALL_YOLO | keys))
    return folder / "small_yolo.yaml"
