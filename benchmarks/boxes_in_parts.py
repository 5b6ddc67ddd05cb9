"""How far the boxes of an image that runs in parts are those of the same image at once, where both fit.

    python -m benchmarks.boxes_in_parts --detector yolo11n.pt --images coco128/images/train2017 --json boxes.json

The image is a canvas of pictures, each shrunk by --scale, in an order drawn by --seed. What finds the boxes is the
detector behind shipped SR weights (SR_Fast everywhere), at once and then in parts for each --memory-mb.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SURE, LEAST, SAME, LIKE = 0.25, 0.05, 0.9, 0.5  # scores of boxes that count and that are looked at; overlaps (IoU)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", nargs="+", required=True, help="Ultralytics .pt, state dict, stage-1 checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures for the canvas")
    parser.add_argument("--lr", default="1280x960", help="width x height of the canvas in LR pixels")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--memory-mb", type=int, nargs="+", default=[256, 1024], help="of the parts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(argv)

    import torch

    from utils.atomic_file import replace_text
    from utils.logger import environment

    torch.set_num_threads(1)
    width, height = map(int, options.lr.split("x"))
    image, rows = canvas(options.images, height, width, options.scale, options.seed), []
    for detector in options.detector:
        for row in measure(detector, image, options.scale, options.memory_mb):
            rows.append(row | {"lr": options.lr, "seed": options.seed})
            print(json.dumps(rows[-1]), flush=True)
    replace_text(options.json, json.dumps({"environment": environment(), "rows": rows}, indent=1))
    return 0


def canvas(folder: Path, height: int, width: int, scale: int, seed: int) -> np.ndarray:
    """Pictures of a folder, shrunk by `scale`, row by row until uint8 (height, width, 3) is full; none is enlarged."""
    import numpy as np
    from PIL import Image

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    order = [files[index] for index in np.random.default_rng(seed).permutation(len(files))]
    image, top, number = np.full((height, width, 3), 114, np.uint8), 0, 0
    while top < height:
        left, deepest = 0, 1
        while left < width:
            with Image.open(order[number % len(order)]) as file:
                small = file.convert("RGB")
            small = small.resize((-(-small.width // scale), -(-small.height // scale)), Image.Resampling.BICUBIC)
            shown = np.asarray(small)[: height - top, : width - left]
            image[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
            left, deepest, number = left + small.width, max(deepest, small.height), number + 1
        top += deepest
    return image


def measure(detector: str, image: np.ndarray, scale: int, memories: list[int]) -> list[dict]:
    """Rows of one detector, two for each memory: objects that a part sees whole, and larger ones."""
    from deployment.detection_memory import pixels_at_once
    from models.mask_policy import parse_policy
    from prediction.api import ConditionalYOLO
    from prediction.large_images import large_images
    from prediction.predictor import PredictOptions
    from utils.device import compute_type

    predictor = ConditionalYOLO(None, "cpu", detector=detector, scale=scale, memory_mb=1_000_000).predictor
    options = PredictOptions(parse_policy("all_fast"), conf=LEAST, max_det=3000)
    (whole,) = predictor([image], options)
    if whole.parts != 1:
        raise SystemExit("the canvas is too large to be detected at once")
    rows = []
    for memory in memories:
        pixels = pixels_at_once(predictor.system, compute_type(predictor.device, False), memory)
        predictor.large = large_images(predictor.system, predictor.device, pixels, predictor.unit)
        (parts,) = predictor([image], options)
        about = {"detector": Path(detector).name, "scale": scale, "memory_mb": memory, "parts": parts.parts}
        about |= {"part": predictor.large.plan.tile}
        for name, low, high in (("up to an eighth", 0, predictor.large.plan.objects), ("larger", None, None)):
            low = predictor.large.plan.objects if low is None else low
            rows.append(about | {"objects": name} | compare(whole.boxes, parts.boxes, low, high))
    return rows


def compare(whole: np.ndarray, parts: np.ndarray, longer_than: float, up_to: float | None) -> dict[str, int]:
    """What became of the sure boxes (score above SURE) of an image at once when it ran in parts.

    Args:
        whole, parts: boxes (n, 6) with scores from LEAST on.
        longer_than, up_to: longer side of the boxes that are looked at, in pixels; None: no end.

    Returns:
        boxes: sure ones at once. same: in parts there is a sure box of the class with IoU >= SAME. unsure: with a
        lower score. moved: only one with IoU >= LIKE. lost: none. more: sure boxes in parts of which there is none
        with IoU >= LIKE at once, whatever its score.
    """
    import numpy as np
    import torch
    from torchvision.ops import box_iou

    def looked_at(boxes: np.ndarray) -> np.ndarray:
        longer = (boxes[:, 2:4] - boxes[:, :2]).max(1, initial=0)
        return boxes[(boxes[:, 4] > SURE) & (longer > longer_than) & (longer <= (np.inf if up_to is None else up_to))]

    def overlaps(some: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(n, m + 1) IoU of boxes of one class; the last column stands for none."""
        iou = box_iou(*(torch.from_numpy(np.ascontiguousarray(boxes[:, :4])) for boxes in (some, others))).numpy()
        iou = np.where(some[:, None, 5] == others[None, :, 5], iou, 0)
        return np.concatenate([iou, np.zeros((len(some), 1), iou.dtype)], 1)

    sure = looked_at(whole)
    iou, scores = overlaps(sure, parts), np.append(parts[:, 4], 0)
    same = ((iou >= SAME) & (scores > SURE)).any(1)
    unsure = (iou >= SAME).any(1) & ~same
    moved = (iou >= LIKE).any(1) & ~same & ~unsure
    more = (overlaps(looked_at(parts), whole) < LIKE).all(1)
    found = {"boxes": len(sure), "same": same.sum(), "unsure": unsure.sum(), "moved": moved.sum()}
    found["lost"] = len(sure) - same.sum() - unsure.sum() - moved.sum()
    return {name: int(number) for name, number in (found | {"more": more.sum()}).items()}


if __name__ == "__main__":
    sys.exit(main())
