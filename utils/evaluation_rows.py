"""The rows of the comparison table: each is one way from an image to boxes, with its cost in MACs and parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import EvaluateConfig
from data.detection import DetectionBatch
from models import build_sr
from models.conditional_sr import ConditionalOutput, ConditionalSR
from models.detector_yolo import YoloDetector
from models.mask_policy import MaskPolicy
from models.system import ConditionalSRDetector
from utils.checkpoint import CheckpointError
from utils.flops_counter import count_macs_at, count_parameters, sr_macs
from utils.load import check_classes, check_scale, load_detector_checkpoint, load_sr, load_system

GREY = 114 / 255  # the colour of the letterbox, which detectors know from training
LEARNED = MaskPolicy("learned")
WRITTEN_BY = {
    "detector": "stage1_pretrain_yolo.py writes it (yolo_pretrained_hr.pth)",
    "sr_fast": "stage2_pretrain_sr.py writes it (sr_fast_pretrained.pth)",
    "sr_quality": "stage2_pretrain_sr.py writes it (sr_quality_pretrained.pth)",
    "system": "stage3_finetune_joint.py writes it (conditional_sr_yolo_jointly_tuned.pth)",
    "retrained": "stage3_finetune_joint.py, run in another mode, writes it (conditional_sr_yolo_jointly_tuned.pth)",
}


@dataclass(frozen=True)
class Row:
    """One way from an image to boxes.

    Args:
        name: of the row.
        detector: finds the boxes.
        system: front end with the same detector; None shows the image to the detector as it is.
        policy: mask policy of a conditional front end.
        sees_hr: the row gets the HR image instead of the LR image.
    """

    name: str
    detector: YoloDetector
    system: ConditionalSRDetector | None = None
    policy: MaskPolicy = LEARNED
    sees_hr: bool = False

    @property
    def patch(self) -> int | None:
        """Side of a mask patch in LR pixels, where the row has masks."""
        return self.system.front.patch if self.conditional else None

    @property
    def conditional(self) -> bool:
        return self.system is not None and isinstance(self.system.front, ConditionalSR)

    def images(self, batch: DetectionBatch) -> Tensor:
        """What the row gets to see, (B, 3, h, w) or (B, 3, H, W) in [0, 1]."""
        return batch.hr if self.sees_hr else batch.lr

    def upscale(self, images: Tensor) -> ConditionalOutput:
        """The front end alone."""
        return self.system.upscale(images, self.policy)

    def detect(
        self, images: Tensor, factor: int, conf: float, iou: float, max_det: int
    ) -> tuple[list[Tensor], ConditionalOutput | None]:
        """Boxes per image (n, 6) in HR canvas pixels, and what the front end made.

        Args:
            images: as from `images`.
            factor: HR canvas pixels per image pixel where there is no front end.
            conf, iou, max_det: see YoloDetector.predict.
        """
        if self.system is not None:
            return self.system.predict(images, self.policy, conf, iou, max_det)
        height, width = self.input_size(*images.shape[-2:])
        padded = F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]), value=GREY)
        found = self.detector.predict(padded, conf, iou, max_det)
        return [boxes * boxes.new_tensor([factor] * 4 + [1, 1]) for boxes in found], None

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the detector's input for an image of height x width."""
        if self.system is not None:
            return height * self.system.scale, width * self.system.scale
        stride = self.detector.stride
        return -(-height // stride) * stride, -(-width // stride) * stride

    def parameters_run(self, kept_share: float | None) -> int:
        """Parameters of all networks that run: SR_Quality where any patch is kept, SR_Fast where any is not."""
        parts: list[nn.Module] = [self.detector]
        if self.conditional:
            front = self.system.front
            parts += [front.sr_fast] if kept_share != 1 else []
            parts += [front.masker] if self.policy.needs_masker else []
            parts += [front.sr_quality] if kept_share else []
        elif self.system is not None:
            parts += [self.system.front]
        return sum(count_parameters(part) for part in parts)


class MacCounter:
    """Counts MACs, each network and size once."""

    def __init__(self):
        self.known: dict[tuple, int] = {}

    def network(self, network: nn.Module, height: int, width: int) -> int:
        """MACs of a network for one image."""
        return self._once((network, height, width), lambda: count_macs_at(network, height, width))

    def front(self, row: Row, height: int, width: int, kept_per_image: list[float]) -> float | None:
        """MACs that the row's front end executes for an LR image, the mean over the split; None without a front end.

        Args:
            row: the row.
            height, width: LR pixels.
            kept_per_image: kept share of every image, where the front end is conditional.
        """
        if row.system is None:
            return None
        if not row.conditional:
            return float(self.network(row.system.front, height, width))
        front, masker = row.system.front, row.policy.needs_masker
        rows, columns = -(-height // front.patch), -(-width // front.patch)
        counts = [round(share * rows * columns) for share in kept_per_image]
        costs = [
            self._once((front, masker, height, width, count), lambda n=count: sr_macs(front, height, width, n, masker))
            for count in counts
        ]
        return sum(costs) / len(costs)

    def _once(self, key: tuple, count: Callable[[], int]) -> int:
        if key not in self.known:
            self.known[key] = count()
        return self.known[key]


def build_rows(config: EvaluateConfig, names: tuple[str, ...]) -> list[Row]:
    """All rows of the configuration, in the order of the table, on the CPU.

    Args:
        config: checkpoints, budgets, scale and LR protocol.
        names: class names of the data set.

    Raises:
        ValueError: a checkpoint is not given, is for another scale or other classes, or a name stands twice.
        CheckpointError: a checkpoint is missing, damaged or of another kind.
    """
    scale = config.data.scale
    detector = _load("detector", config.detector, load_detector_checkpoint)
    check_classes(config.detector, detector.names, names)
    system = _load_system("system", config.system, scale, names)
    if not isinstance(system.front, ConditionalSR):
        raise ValueError(
            f"system: {config.system} has {system.front.spec['name']} as front end and no masker; name it under "
            "`retrained`, and give as `system` a checkpoint that stage 3 trained with `sr: conditional`"
        )
    fronts = {"bicubic": build_sr("bicubic", scale, {})}
    load = partial(load_sr, scale=scale)
    for role in ("sr_fast", "sr_quality"):
        path = getattr(config, role)
        fronts[role] = getattr(system.front, role) if path is None else _load(role, path, load)
        check_scale(path or config.system, fronts[role].scale, scale)

    rows = [] if config.data.lr == "native" else [Row("hr", detector, sees_hr=True)]
    rows += [Row("lr", detector)]
    rows += [Row(name, detector, ConditionalSRDetector(front, detector)) for name, front in fronts.items()]
    policies = {"learned": LEARNED}
    for kind in ("budget", "random", "edge"):
        policies |= {f"{kind}_{share:g}": MaskPolicy(kind, share) for share in config.budgets}
    policies |= {f"latency_{ms:g}": MaskPolicy("latency_ms", ms) for ms in config.latencies}
    policies |= {kind: MaskPolicy(kind) for kind in ("all_fast", "all_quality")}
    rows += [Row(f"conditional_{name}", system.detector, system, policy) for name, policy in policies.items()]
    for name, path in config.retrained.items():
        if name in {row.name for row in rows}:
            raise ValueError(f"retrained.{name}: the table has a row of this name already; choose another name")
        other = _load_system(f"retrained.{name}", path, scale, names)
        rows.append(Row(name, other.detector, other))
    for row in rows:
        (row.detector if row.system is None else row.system).eval()
    return rows


def _load_system(key: str, path: str, scale: int, names: tuple[str, ...]) -> ConditionalSRDetector:
    system = _load(key, path, load_system)
    check_scale(path, system.scale, scale)
    check_classes(path, system.detector.names, names)
    return system


def _load(key: str, path: str, loader: Callable):
    """Load a checkpoint; a missing one is named with its configuration key and the script that makes it."""
    written_by = WRITTEN_BY[key.partition(".")[0]]
    if not path:
        raise ValueError(f"{key}: no checkpoint is given; {written_by}")
    if not Path(path).is_file():
        raise CheckpointError(f"{key}: {path} does not exist; {written_by}")
    return loader(path)
