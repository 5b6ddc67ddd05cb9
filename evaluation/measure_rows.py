"""Measures the rows of the comparison table: detection quality over a split, time and memory at batch 1, pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from configs.evaluate_schema import EvaluateConfig
from data.detection import DetectionDataset, make_loader
from data.detection_batch import DetectionBatch, collate_detection
from deployment.cuda_graphs import eager, warmup_rounds
from deployment.prepare import InferencePreparation, how_it_runs
from deployment.prepare_detector import prepare_detector
from evaluation.detection_eval import SplitResult, canvas_boxes, detect_split
from evaluation.mac_counter import MacCounter
from evaluation.oracle_mask import OracleMask
from evaluation.row_key import RowKey
from evaluation.rows import Row
from models.front_end import ConditionalOutput
from models.mask_policy import MaskPolicy
from utils.atomic_file import replace_file
from utils.convert import to_uint8
from utils.device import DTYPES, check_precision
from utils.overlay import detection_panel
from utils.progress import ProgressBar
from utils.timing import in_turn, measure_interleaved, peak_memory_mb, spread

SHOWN_CONF = 0.25  # what a user sees: lowest score in timed calls and pictures, not in the mAP
TIMED_IMAGES = 4
WARMUP = 2


class MethodInput(NamedTuple):
    """What a row gets of a batch: images, the mask policy, which for the oracle knows the ground truth, and which part
    is no padding (models/content.py)."""

    images: Tensor
    policy: MaskPolicy | OracleMask
    content: Tensor | None

    @classmethod
    def of(cls, row: Row, batch: DetectionBatch) -> MethodInput:
        return cls(row.images(batch), row.policy_for(batch), batch.content)


class DetectionEvaluation:
    """Runs rows over a data set.

    Args:
        rows: what to measure; copies are prepared for the device.
        dataset: images and labels, with the canvas and the scale of the rows.
        config: precision, batch, thresholds, timing_runs, overlays.
        device: where to run.

    Raises:
        ValueError: fp16 without CUDA.
    """

    def __init__(self, rows: list[Row], dataset: DetectionDataset, config: EvaluateConfig, device: torch.device):
        check_precision(config.run.precision, device, "run.precision")
        self.rows, self.dataset, self.config, self.device = rows, dataset, config, device
        self.prepared = prepare_rows(rows, device, DTYPES[config.run.precision], config.backend)

    def detect(self, row: Row, inputs: MethodInput, conf: float) -> tuple[list[Tensor], ConditionalOutput | None]:
        """Boxes in HR canvas pixels, and what the front end made."""
        method, limits = self.prepared[row.name].method, (conf, self.config.iou, self.config.max_det)
        return method.predict(inputs.images, inputs.policy, *limits, inputs.content)

    def super_resolve(self, row: Row, inputs: MethodInput) -> ConditionalOutput:
        """The front end alone."""
        return self.prepared[row.name].method.super_resolve(inputs.images, inputs.policy, inputs.content)

    def say_how_it_runs(self, systems: dict[RowKey, Row]) -> None:
        """One line per system with a masker: kernels, types and halo of its inference copy."""
        for key, row in systems.items():
            print(f"{key.name}: {how_it_runs(self.prepared[row.name].method)}")

    def how_rows_run(self) -> dict[str, str]:
        """What computes each row, by its name."""
        return {name: how_it_runs(row.method) for name, row in self.prepared.items()}

    # ---------------------------------------------------------------- quality

    def quality(self) -> dict[str, SplitResult]:
        """Result of the split by row name. All rows see a batch while it is there, so every image is decoded once."""
        results = {row.name: SplitResult() for row in self.rows}
        loader = make_loader(
            self.dataset, None, self.config.batch, self.config.run.workers, pin_memory=self.device.type == "cuda"
        )
        with ProgressBar(len(loader) * len(self.rows), "quality") as bar:
            for batch in loader:
                batch = batch.to(self.device)
                for row in self.rows:
                    merge(results[row.name], self.batch_quality(row, batch))
                    bar.update(row.name)
        return results

    def batch_quality(self, row: Row, batch: DetectionBatch) -> SplitResult:
        """Result of one batch."""

        def predict(batch: DetectionBatch) -> tuple[list[Tensor], ConditionalOutput | None]:
            return self.detect(row, MethodInput.of(row, batch), self.config.conf)

        return detect_split(predict, [batch], self.device, patch=row.patch, with_psnr=batch.hr is not None)

    # ------------------------------------------------------------------- cost

    def cost(self) -> dict[str, dict[str, float | None]]:
        """sr_ms, total_ms, total_ms_p95, peak_mem_mb by row name, at batch 1: from the tensor in memory to boxes after
        non-maximum suppression. All rows take turns on the same few images of the split."""
        batches = [self.single(index) for index in spread(len(self.dataset), TIMED_IMAGES)]
        totals, fronts = {}, {}
        for row in self.rows:
            inputs = [MethodInput.of(row, batch) for batch in batches]
            totals[row.name] = in_turn(lambda x, row=row: self.detect(row, x, SHOWN_CONF), inputs)
            if row.method.front is not None:
                fronts[f"sr {row.name}"] = in_turn(lambda x, row=row: self.super_resolve(row, x), inputs)
        timings, runs = {}, self.config.timing_runs
        if runs:
            warmup = warmup_rounds(len(batches), self.device, WARMUP)
            with ProgressBar(warmup + runs, "timing") as bar:
                timings = measure_interleaved(totals | fronts, runs, warmup, self.device, on_round=bar.update)
        costs = {}
        for row in self.rows:
            total, front = timings.get(row.name), timings.get(f"sr {row.name}")
            costs[row.name] = {
                "sr_ms": front.median_ms if front else None,
                "total_ms": total.median_ms if total else None,
                "total_ms_p95": total.p95_ms if total else None,
                "peak_mem_mb": peak_memory_mb(eager(totals[row.name]), self.device),
            }
        return costs

    def single(self, index: int) -> DetectionBatch:
        """One image as a batch on the device."""
        return collate_detection([self.dataset[index]]).to(self.device)

    # ----------------------------------------------------------------- report

    def table(self, quality: dict[str, SplitResult], costs: dict[str, dict]) -> list[dict]:
        """The rows of results.json."""
        table = []
        for ran in self.executed(quality, costs):
            metrics = quality[ran["name"]].metrics(self.dataset.names)
            entry = {key: metrics[key] for key in ("map50_95", "map50", "ap_small", "ap_medium", "ap_large")}
            entry |= {"ap_per_class": metrics["per_class"], "pr_curve": metrics["pr_curve"]}
            table.append(ran | entry | {"pr_curve_per_class": metrics["pr_curve_per_class"]})
        return table

    def executed(self, quality: dict[str, SplitResult], costs: dict[str, dict]) -> list[dict]:
        """What ran in every row, and what it cost, without what was found."""
        counter, table, runs = MacCounter(), [], self.how_rows_run()
        for row in self.rows:
            split, factor = quality[row.name], self.dataset.scale if row.method.sees_hr else 1
            height, width = (side * factor for side in self.dataset.lr_canvas)
            sr = counter.front(row, height, width, split.patches_per_image)
            total = (sr or 0) + counter.detector(row, height, width)
            entry = {"name": row.name} | row.key.record() | {"runs": runs[row.name]}
            entry |= {"kept_share": split.kept_share, "sr_gmacs": None if sr is None else sr / 1e9}
            params = row.parameters_run(height, width, split.patches_per_image)
            entry |= {"total_gmacs": total / 1e9, "params": params} | costs[row.name]
            table.append(
                entry | {"kept_inside": split.kept_inside, "kept_outside": split.kept_outside, "psnr": split.psnr}
            )
        return table

    def overlay(self, row: Row, index: int) -> np.ndarray:
        """LR, mask, SR, detections and ground truth of one image side by side, uint8 (H, W, 3)."""
        batch = self.single(index)
        found, output = self.detect(row, MethodInput.of(row, batch), SHOWN_CONF)
        truth = canvas_boxes(batch, 0)
        classes = batch.classes.cpu().numpy()[:, None]
        ground_truth = np.concatenate([truth, np.full_like(classes, np.nan, dtype=float), classes], axis=1)
        mask = None if output.mask is None else output.mask[0, 0].float().cpu().numpy()
        return detection_panel(
            to_uint8(batch.lr[0]),
            to_uint8(output.sr[0]),
            found[0].float().cpu().numpy(),
            self.dataset.names,
            ground_truth=ground_truth,
            mask=mask,
            patch=row.patch,
        )

    def save_overlays(self, folder: Path, row: Row) -> None:
        """Pictures of images spread over the split, by a row whose system has a masker."""
        for index in spread(len(self.dataset), self.config.overlays):
            content = cv2.imencode(".png", self.overlay(row, index)[..., ::-1])[1].tobytes()
            path = folder / f"{index:05d}_{self.dataset.records[index].image.stem}.png"
            replace_file(path, lambda file, content=content: file.write(content))


def prepare_rows(rows: list[Row], device: torch.device, dtype: torch.dtype, backend: str = "native") -> dict[str, Row]:
    """Inference copies of all rows by name; rows that share a method or a detector share its copy."""
    detectors, methods, prepared = {}, {}, {}
    preparation = InferencePreparation(device, dtype, backend=backend)
    for row in rows:
        method, detector = row.method, row.method.detector
        if id(detector) not in detectors:
            detectors[id(detector)] = prepare_detector(detector, device, dtype, backend)
        if id(method) not in methods:
            methods[id(method)] = method.with_detector(detectors[id(detector)], preparation)
        prepared[row.name] = replace(row, method=methods[id(method)])
    return prepared


def merge(into: SplitResult, part: SplitResult) -> None:
    """Append one part of a split to what is there."""
    for name in ("detections", "ground_truth", "kept_per_image", "patches_per_image", "psnr_per_image"):
        getattr(into, name).extend(getattr(part, name))
    into.inside += part.inside
    into.outside += part.outside
