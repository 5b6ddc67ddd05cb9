"""Can label-free training through a public detector beat SR weights that were trained on pixels? One table.

    python -m benchmarks.label_free --detector yolo11n.pt --train my/photographs --held my/others --data my/coco128.yaml

Trains one SR network for the whole image through the frozen detector, without labels, in several ways from the shipped
weights (docs/adapt.md), and holds each against bicubic and the shipped weights: agreement with the detector's own boxes
on native crops of held-out photographs, and mAP on the labels of `--data`. Intervals are a bootstrap over photographs,
the same draws for all rows. An interrupted run goes on where it was; writes OUT/label_free.md and OUT/label_free.json.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from utils.atomic_file import replace_text
from utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from configs.stage3_schema import Stage3Config
    from data.detection import DetectionDataset
    from evaluation.rows import Row
    from models.detector_yolo import YoloDetector
    from models.sr_network import SRNetwork

SCALE = 4
MOST_PIXELS = 100_000_000
SHIPPED = {
    "sr_fast": {"n_blocks": 2, "n_feats": 16, "tail": "single"},
    "EDSR 8x32": {"n_blocks": 8, "n_feats": 32, "tail": "single"},
    "EDSR 16x64": {"n_blocks": 16, "n_feats": 64, "tail": "single"},
}
BASE = "EDSR 8x32"


@dataclass(frozen=True)
class Variant:
    """One way to train; the base of all others by default.

    Args:
        network: which of SHIPPED is trained.
        times: as many times the steps of `--steps`.
        native: native crops of the photographs, else the whole ones shrunk to the same size.
        losses: weights that differ from the base's.
    """

    network: str = BASE
    times: float = 1
    native: bool = True
    losses: tuple[tuple[str, float], ...] = ()


VARIANTS = {
    "base": Variant(),
    "whole photographs, shrunk": Variant(native=False),
    "outputs alone": Variant(losses=(("distill", 0.0),)),
    "features alone": Variant(losses=(("distill_outputs", 0.0),)),
    "pixels as well": Variant(losses=(("rec", 10.0),)),
    "four times the steps": Variant(times=4),
    "four times the steps, pixels as well": Variant(times=4, losses=(("rec", 10.0),)),
    "larger network": Variant(network="EDSR 16x64"),
}


# ------------------------------------------------------------------------------------------------------------- pictures


def write_crops(files: list[Path], folder: Path, side: int) -> None:
    """Native crops that do not overlap, `{photograph}__{index}.png`; photographs that are smaller are left out."""
    import cv2

    from data.images import read_rgb

    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        image = read_rgb(file, MOST_PIXELS)
        height, width = image.shape[:2]
        corners = [(y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
        for index, (y, x) in enumerate(corners):
            cv2.imwrite(str(folder / f"{number:05d}__{index}.png"), image[y : y + side, x : x + side, ::-1].copy())


def photographs(folders: list[str]) -> list[Path]:
    """Files of all folders, in their order."""
    from data.images import list_images

    return [file for folder in folders for file in list_images(folder)]


def crops_of(options: argparse.Namespace, role: str, side: int) -> Path:
    """The folder of native crops of `--train` or `--held`, made where it is missing.

    Raises:
        UserError: no photograph is large enough.
    """
    folder, given = Path(options.out) / f"{role}_{side}", getattr(options, role)
    done = folder / "complete"
    if not done.exists():
        write_crops(photographs(given), folder, side)
        if not any(folder.iterdir()):
            raise UserError(f"--{role}: {', '.join(given)} hold no picture of {side} x {side} pixels or more")
        done.touch()
    return folder


# ------------------------------------------------------------------------------------------------------------- training


def stage3(variant: Variant, options: argparse.Namespace, pictures: int) -> Stage3Config:
    """The training of a variant as a stage 3: that of adapt.py, of one network and without a masker.

    Raises:
        UserError: there are fewer pictures than a step takes.
    """
    from configs.adapt_schema import AdaptConfig
    from configs.schema import NetworkConfig, RunConfig
    from training.adapt import stage3_config

    if pictures < options.batch:
        raise UserError(f"--train: {pictures} pictures are fewer than --batch {options.batch}; give more folders")
    steps = round(options.steps * variant.times)
    run = RunConfig(out=str(options.out), seed=options.seed, threads=options.threads, workers=1)
    network = NetworkConfig("edsr", SHIPPED[variant.network], "shipped")
    adapt = AdaptConfig(run, imgsz=options.side, scale=SCALE, steps=steps, sr_quality=network)
    config = stage3_config(adapt, math.ceil(steps / (pictures // options.batch)), options.batch)
    return replace(
        config, sr="sr_quality", losses=replace(config.losses, **dict(variant.losses)),
        optim=replace(config.optim, warmup=max(1, steps // 10)),
    )  # fmt: skip


def pictures_of(variant: Variant, options: argparse.Namespace) -> list[Path]:
    """What a variant is trained on."""
    from data.images import list_images

    return list_images(crops_of(options, "train", options.side)) if variant.native else photographs(options.train)


def steps_of(name: str, options: argparse.Namespace) -> int:
    """Optimiser steps of a variant."""
    pictures = len(pictures_of(VARIANTS[name], options))
    return stage3(VARIANTS[name], options, pictures).optim.epochs * (pictures // options.batch)


def trained(name: str, variant: Variant, detector: YoloDetector, options: argparse.Namespace) -> SRNetwork:
    """The network of a variant, its averaged weights; from its folder where it is trained already."""
    from data.unlabelled import unlabelled_records
    from loading.systems import load_system
    from training.adapt import save_system, train_front_end
    from training.processes import make_accelerator

    folder = Path(options.out) / "trained" / name.replace(" ", "_").replace(",", "")
    file = folder / "system.pth"
    if not file.exists():
        pictures = unlabelled_records(pictures_of(variant, options))
        config = stage3(variant, options, len(pictures))
        accelerator = make_accelerator(config.run, some_get_no_gradient=True)
        joint, _ = train_front_end(name, config, detector, pictures, folder, accelerator)
        save_system(file, joint.task.system, {"stage": 3, "mode": config.mode, "epochs": config.optim.epochs})
    return load_system(file).front.network.eval()


# ------------------------------------------------------------------------------------------------------------ measuring


def rows_of(networks: dict[str, SRNetwork], detector: YoloDetector) -> list[Row]:
    """HR pictures, bicubic, and every network everywhere."""
    from evaluation.build_rows import bicubic_before, on_hr_images
    from evaluation.row_key import STOCK, RowKey
    from evaluation.rows import Row
    from models.single_sr import SingleSR
    from models.system import ConditionalSRDetector

    rows = [Row(STOCK["bicubic"], bicubic_before(detector, SCALE, 1))]
    rows += [Row(RowKey(name), ConditionalSRDetector(SingleSR(n), detector)) for name, n in networks.items()]
    return [on_hr_images(STOCK["hr"], detector), *rows]


def of_photographs(dataset: DetectionDataset, resamples: int, seed: int) -> Tensor:
    """All images once, then how often each is drawn when whole photographs are; (1 + resamples, images)."""
    import torch

    from evaluation.map_bootstrap import image_draws

    names = [record.image.stem.split("__")[0] for record in dataset.records]
    index = torch.tensor([sorted(set(names)).index(name) for name in names])
    draws = image_draws(int(index.max()) + 1, resamples, seed)[:, index]
    return torch.cat([torch.ones(1, len(names), dtype=draws.dtype), draws])


def measured(rows: list[Row], dataset: DetectionDataset, labelled: bool, options: argparse.Namespace) -> dict:
    """name -> samples of the agreement, and with labels of the mAP; the first sample is of all images."""
    import torch

    from configs.evaluate_schema import EvaluateConfig
    from configs.schema import DetectionDataConfig, RunConfig
    from evaluation.agreement import sampled, sure_boxes
    from evaluation.measure_rows import DetectionEvaluation

    config = EvaluateConfig(
        run=RunConfig(seed=options.seed, threads=options.threads, workers=1),
        data=DetectionDataConfig("", list(dataset.canvas), SCALE), conf=0.001, timing_runs=0, overlays=0,
    )  # fmt: skip
    quality = DetectionEvaluation(rows, dataset, config, torch.device("cpu")).quality()
    truths = {"agreement": sure_boxes(quality["hr"], options.sure)}
    truths |= {"mAP": quality["hr"].ground_truth} if labelled else {}
    draws = of_photographs(dataset, options.resamples, options.seed)
    found: dict = {"images": len(dataset), "boxes": sum(len(boxes) for boxes, _, _ in truths["agreement"])}
    for figure, truth in truths.items():
        found[figure] = {row.name: sampled(truth, quality[row.name].detections, dataset.names, draws) for row in rows}
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", required=True, help="public detector: .pt or state dict")
    parser.add_argument("--train", nargs="+", required=True, help="folders of photographs to train on")
    parser.add_argument("--held", nargs="+", required=True, help="folders of other photographs, cut into native crops")
    parser.add_argument("--data", required=True, help="data-set YAML whose val split has labels, other photographs too")
    parser.add_argument("--out", default="runs/label_free")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--side", type=int, default=224, help="pixels of HR pictures in training")
    parser.add_argument("--crop", type=int, default=224, help="pixels of held-out crops")
    parser.add_argument("--imgsz", type=int, default=640, help="pixels of labelled photographs")
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument(
        "--sure", type=float, default=0.25, help="score from which a box in an HR picture must be found"
    )
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--train-only", action="store_true", help="measure another time")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)

    import torch

    from configs.schema import DetectionDataConfig, NetworkConfig
    from data.data_spec import load_data_spec, scan_splits
    from data.detection import DetectionDataset, canvas_size
    from data.images import list_images
    from data.unlabelled import unlabelled_records
    from evaluation.label_free_report import lines_of, page
    from loading.deployed_detector import load_deployed_detector
    from loading.load_sr import build_or_load_sr
    from utils.logger import environment

    torch.set_num_threads(options.threads)
    spec = load_data_spec(options.data)
    detector = load_deployed_detector(options.detector, None, spec.names)

    # 1. Train what is missing
    networks = {name: build_or_load_sr(NetworkConfig("edsr", args, "shipped"), SCALE).eval()
                for name, args in SHIPPED.items()}  # fmt: skip
    networks |= {name: trained(name, VARIANTS[name], detector, options) for name in options.variants}
    if options.train_only:
        return 0

    # 2. Measure all on crops of held-out photographs, and on whole ones with labels
    rows = rows_of(networks, detector)
    crops = unlabelled_records(list_images(crops_of(options, "held", options.crop)))
    data = DetectionDataConfig(options.data, options.imgsz, SCALE)
    labelled = scan_splits(spec, data, ["val"])["val"]
    places = {
        "held-out crops": (crops, canvas_size(options.crop, SCALE, detector.stride), False),
        "labelled photographs": (labelled, canvas_size(options.imgsz, SCALE, detector.stride), True),
    }
    results: dict = {}
    for place, (records, canvas, labels) in places.items():
        found = measured(rows, DetectionDataset(records, detector.names, canvas, SCALE), labels, options)
        results[place] = {key: lines_of(value, list(SHIPPED)) if isinstance(value, dict) else value
                          for key, value in found.items()}  # fmt: skip

    # 3. The table
    out = Path(options.out)
    where = {key: value for key, value in environment().items() if key in ("date", "git", "versions", "cpu")}
    content = {"command": command_of(sys.argv[1:] if argv is None else argv), "results": results, "environment": where}
    content |= {"seed": options.seed, "scale": SCALE}
    content |= {"steps": {name: steps_of(name, options) for name in options.variants}}
    content |= {"rivals": {name: VARIANTS[name].network for name in options.variants}}
    replace_text(out / "label_free.json", json.dumps(content, indent=1) + "\n")
    text = page(content, BASE)
    replace_text(out / "label_free.md", text)
    print(text)
    return 0


def command_of(argv: list[str]) -> str:
    """The command that was given, files and folders without those above them."""
    words = ["/".join(Path(word).parts[-2:]) if word.startswith("/") else word for word in argv]
    return shlex.join(["python", "-m", "benchmarks.label_free", *words])


if __name__ == "__main__":
    from utils.cli import run

    run(main)
