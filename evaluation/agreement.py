"""What resolution costs a deployed detector, without labels: how far its boxes in LR pictures agree with its own in HR.

The figure is mAP 0.50:0.95 of what a row finds, with the boxes that the detector finds in the HR pictures above a score
as ground truth; HR pictures themselves have 1 by construction. Labels, where there are any, are judged beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from configs.adapt_schema import AdaptConfig
from configs.evaluate_schema import EvaluateConfig
from data.detection import DetectionDataset
from evaluation.advice import Advice, advise
from evaluation.build_rows import bicubic_before, on_hr_images
from evaluation.detection_eval import SplitResult
from evaluation.map_bootstrap import class_matches, image_draws, interval, weighted_map
from evaluation.measure_rows import DetectionEvaluation
from evaluation.row_key import STOCK, RowKey
from evaluation.rows import Row
from models.detector_yolo import YoloDetector
from models.mask_policy import MaskPolicy
from models.single_sr import SingleSR
from models.sr_network import SRNetwork
from models.system import ConditionalSRDetector
from utils.errors import UserError
from utils.metrics import GroundTruth

TRAINED = "trained"
COPIED = ("kept_share", "sr_gmacs", "total_gmacs", "sr_ms", "total_ms", "psnr")


@dataclass(frozen=True)
class Measurement:
    """Figures of rows on held-out pictures.

    Args:
        rows: JSON types: the fields of RowKey, `agreement` and, with labels, `map50_95`, both with the 95 % interval of
            a bootstrap over pictures (`*_interval`), the interval `behind` the best row, and costs.
        advice: which of them to deploy.
        judged_by: the figure by which: `map50_95` where there are labels, else `agreement`.
        objects: sure boxes in the HR pictures.
    """

    rows: list[dict]
    advice: Advice
    judged_by: str
    objects: int


def baseline_rows(detector: YoloDetector, networks: dict[str, SRNetwork], scale: int) -> list[Row]:
    """HR pictures, then what needs no training: bicubic, the same at 1.5 times the size, and SR networks everywhere.

    Args:
        detector: as deployed.
        networks: sr_fast and sr_quality, those that have weights.
        scale: of the networks.
    """
    methods = {name: bicubic_before(detector, scale, STOCK[name].upscale) for name in ("bicubic", "bicubic_1.5x")}
    methods |= {name: ConditionalSRDetector(SingleSR(network), detector) for name, network in networks.items()}
    return [on_hr_images(STOCK["hr"], detector), *(Row(STOCK[name], method) for name, method in methods.items())]


def trained_rows(system: ConditionalSRDetector, share: float) -> list[Row]:
    """A trained front end: its SR_Fast everywhere, SR_Quality on this share of the patches, SR_Quality everywhere."""
    front, detector = system.front, system.detector
    alone = {
        name: ConditionalSRDetector(SingleSR(front.networks[name]), detector).eval()
        for name in ("sr_fast", "sr_quality")
    }
    rows = {name: Row(RowKey(name, recipe=TRAINED), method) for name, method in alone.items()}
    key = RowKey("conditional", recipe=TRAINED).under("budget", share)
    return [rows["sr_fast"], Row(key, system, MaskPolicy("budget", share)), rows["sr_quality"]]


def measure_agreement(
    rows: Sequence[Row],
    dataset: DetectionDataset,
    labelled: bool,
    config: AdaptConfig,
    options: EvaluateConfig,
    device: torch.device,
) -> Measurement:
    """Figures of all rows, and which of them to deploy.

    Args:
        rows: HR pictures first.
        dataset: held-out pictures.
        labelled: their labels are known.
        config: score of sure boxes, resamples, seed.
        options: precision, batch and thresholds of the measurement.
        device: where to run.

    Raises:
        UserError: the detector finds no sure box in the HR pictures.
    """
    evaluation = DetectionEvaluation(list(rows), dataset, options, device)
    quality = evaluation.quality()
    reference = sure_boxes(quality[rows[0].name], config.sure)
    objects = sum(len(boxes) for boxes, _, _ in reference)
    if not objects:
        raise UserError(
            f"the detector finds nothing above a score of {config.sure:g} in {len(dataset)} held-out HR pictures; give "
            "other pictures or another imgsz, or lower `sure`"
        )
    table = evaluation.executed(quality, evaluation.cost())
    truths = {"agreement": reference}
    if labelled:
        truths["map50_95"] = quality[rows[0].name].ground_truth
    draws = torch.cat([torch.ones(1, len(dataset)), image_draws(len(dataset), config.resamples, config.run.seed)])
    samples = {
        figure: {row.name: sampled(truth, quality[row.name].detections, dataset.names, draws) for row in rows}
        for figure, truth in truths.items()
    }
    by = max(samples, key=lambda figure: (np.isfinite(samples[figure][rows[0].name][0]), figure == "map50_95"))
    judged = samples[by]
    candidates = [row.name for row in rows if not row.method.sees_hr]
    costs = {entry["name"]: entry["total_gmacs"] for entry in table}
    advice = advise(
        {name: judged[name][0] for name in candidates}, {name: judged[name][1:] for name in candidates}, costs
    )
    return Measurement([entry_of(entry, samples, advice) for entry in table], advice, by, objects)


def sure_boxes(split: SplitResult, score: float) -> list[GroundTruth]:
    """Detections from this score on, as ground truth."""
    kept = [found[found[:, 4] >= score] for found in split.detections]
    sizes = [size for _, _, size in split.ground_truth]
    return [(found[:, :4], found[:, 5].astype(int), size) for found, size in zip(kept, sizes, strict=True)]


def sampled(
    truth: list[GroundTruth], detections: list[np.ndarray], names: tuple[str, ...], draws: torch.Tensor
) -> np.ndarray:
    """mAP for every draw of the pictures."""
    matches = class_matches(truth, detections, names)
    return weighted_map(matches, draws.double()).numpy() if matches else np.full(len(draws), np.nan)


def entry_of(entry: dict, samples: dict[str, dict[str, np.ndarray]], advice: Advice) -> dict:
    """A row of the report from one of `DetectionEvaluation.table`."""
    name, row = entry["name"], {"name": entry["name"]} | {key: entry[key] for key in asdict(RowKey(""))}
    for figure, values in samples.items():
        known = np.isfinite(values[name][0])
        row[figure] = float(values[name][0]) if known else None
        row[f"{figure}_interval"] = list(interval(values[name][1:])) if known else None
    row["behind"] = list(advice.behind[name]) if name in advice.behind else None
    return row | {key: entry[key] for key in COPIED}
