"""Whether a written file computes what the graph does in PyTorch, at sizes that it was not traced with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deployment.export.executorch_format import executorch_runtime
from deployment.export.traced import EXTRA, INPUT, ExportOptions, tracing
from deployment.openvino_core import openvino_core
from utils.extras import require

Run = Callable[[np.ndarray], list[np.ndarray]]
IMAGE_TOLERANCE, BOX_TOLERANCE = 1e-4, 0.01  # in fp32: of values in [0, 1], and of pixels
# Batch, and sides as shares of imgsz: ten shapes, none of which a graph was traced with.
SHAPES = ((1, 1, 1), (2, 1, 1), (1, 0.5, 1), (1, 1, 0.5), (3, 0.5, 0.5), (1, 0.7, 0.9), (2, 0.9, 0.7), (1, 0.4, 0.8),
          (4, 0.3, 0.3), (1, 1.2, 0.6))  # fmt: skip


@dataclass(frozen=True)
class Parity:
    """Largest differences between a file and PyTorch.

    Args:
        image: of SR images and masks, in [0, 1]; None where there are none.
        boxes: of box coordinates, in pixels of the input; None where there are none.
        scores: of class scores; None likewise.
        shapes: how many shapes were tried.
    """

    image: float | None
    boxes: float | None
    scores: float | None
    shapes: int

    @property
    def finite(self) -> bool:
        """Whether the file computes numbers, of the right shapes: what 16 bit must not lose either."""
        return all(value is None or math.isfinite(value) for value in (self.image, self.boxes, self.scores))

    @property
    def close(self) -> bool:
        """Whether all are within the tolerances of fp32."""
        limits = ((self.image, IMAGE_TOLERANCE), (self.boxes, BOX_TOLERANCE), (self.scores, IMAGE_TOLERANCE))
        return all(value is None or value <= limit for value, limit in limits)

    def __str__(self) -> str:
        named = (("images", self.image, ""), ("boxes", self.boxes, " px"), ("scores", self.scores, ""))
        parts = [f"{name} {value:.1e}{unit}" for name, value, unit in named if value is not None]
        return f"largest difference to PyTorch: {', '.join(parts)} ({self.shapes} shape{'s'[: self.shapes > 1]})"


def runtime(format_: str, file: Path, openvino_type: str = "f32") -> Run:
    """The file, not of TensorRT, as a function of one float32 array (B, 3, h, w) on the CPU.

    It computes in fp32; OpenVINO in `openvino_type` (f32, bf16) where the CPU has that.
    """
    if format_ == "onnx":
        onnxruntime = require("onnxruntime", EXTRA)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {INPUT: images})
    if format_ == "openvino":
        # On CPUs with bf16 OpenVINO would compute in it, with errors of 1e-2.
        settings = {"INFERENCE_PRECISION_HINT": openvino_type, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        model = openvino_core().compile_model(str(file), "CPU", settings)
        return lambda images: [np.array(value) for value in model([images]).to_tuple()]
    if format_ == "executorch":
        return executorch_runtime(file)
    with tracing(format_):
        model = torch.jit.load(str(file))
    return lambda images: [value.numpy() for value in model(torch.from_numpy(images))]


def shapes_of(options: ExportOptions, multiple: int = 1, fixed_batch: bool = False) -> list[tuple[int, int, int]]:
    """Batch, height and width to try: ten, or one where sizes are fixed."""
    if not options.dynamic:
        return [(options.batch, *options.imgsz)]
    if fixed_batch:
        return [(options.batch, *sides) for _, *sides in shapes_of(options, multiple)]
    sides = [(batch, *(share * side for share, side in zip(shares, options.imgsz))) for batch, *shares in SHAPES]
    return [(batch, *(max(1, round(side / multiple)) * multiple for side in both)) for batch, *both in sides]


@torch.no_grad()
def measure_parity(run: Run, graph: nn.Module, shapes: Sequence[tuple[int, int, int]], seed: int = 0) -> Parity:
    """Compare on drawn images, smooth with a little noise.

    Args:
        run: see `runtime`.
        graph: the original, with `outputs` and `image_output`.
        shapes: batch, height and width.
    """
    generator, found = torch.Generator().manual_seed(seed), {"image": [], "boxes": [], "scores": []}
    for batch, height, width in shapes:
        images = drawn(batch, height, width, generator)
        expected = graph(images)
        for name, ours, theirs in zip(graph.outputs, expected, run(images.numpy()), strict=True):
            if ours.shape != theirs.shape:
                difference = torch.full_like(ours, float("inf"))
            else:
                difference = (ours.float() - torch.from_numpy(theirs).float()).abs()
            if name == "output0" and not graph.image_output:
                found["boxes"].append(difference[:, :4].max().item())
                found["scores"].append(difference[:, 4:].max().item())
            else:
                found["image"].append(difference.max().item())
    # Not `max`, for which a NaN is no larger than what stands before it.
    return Parity(*(float(np.max(values)) if values else None for values in found.values()), len(shapes))


def drawn(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Images (B, 3, h, w) in [0, 1]."""
    coarse = torch.rand(batch, 3, 4, 5, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (smooth + 0.1 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
