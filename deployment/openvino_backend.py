"""OpenVINO as the backend of detectors and SR networks on CPUs: same result up to rounding, often faster; optional.

Modules are converted in memory when they are prepared (deployment/prepare.py); nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deployment.export.formats import EXTRA, tracing
from deployment.export.graphs import DetectorGraph
from utils.device import dtype_name
from utils.errors import UserError
from utils.extras import require

if TYPE_CHECKING:
    from models.detector_yolo import YoloDetector

HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
REPEATS = 5
GAIN = 0.95  # of the rival's time, see NATIVE_GAIN of deployment/prepare.py


def is_installed() -> bool:
    """Whether OpenVINO can be imported; it is not imported."""
    return find_spec("openvino") is not None


class OpenVINOModule(nn.Module):
    """A module of one image tensor and one result, computed by OpenVINO for images of any size.

    Args:
        module: in evaluation mode, on the CPU; its weights are copied.
        dtype: torch.float32 or torch.bfloat16, of the computation and of the result.
        multiple: of which the sides of its images are multiples.

    Raises:
        UserError: OpenVINO is not installed, or the module cannot be converted.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, multiple: int = 1):
        super().__init__()
        openvino = require("openvino", EXTRA, "backend openvino")
        sides = (2 * multiple, 3 * multiple) if multiple > 1 else (19, 23)
        with tracing("OpenVINO"), torch.no_grad():
            model = openvino.convert_model(module, example_input=torch.rand(2, 3, *sides))
        settings = {"INFERENCE_PRECISION_HINT": HINTS[dtype], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self.dtype = dtype
        self.run = openvino.Core().compile_model(model, "CPU", settings)

    def forward(self, images: Tensor) -> Tensor:
        (result,) = self.run([images.float().contiguous().numpy()]).to_tuple()
        return torch.from_numpy(result).to(self.dtype)


class OpenVINODetector:
    """A detector whose network and decoding OpenVINO computes; suppression is that of `YoloDetector`.

    Args:
        detector: in evaluation mode, on the CPU.
        dtype: see OpenVINOModule; boxes are fp32.

    Raises:
        UserError: see OpenVINOModule.
    """

    dtype = None  # images of any type are taken

    def __init__(self, detector: YoloDetector, dtype: torch.dtype):
        graph = DetectorGraph(detector).requires_grad_(False)
        self.decoded = OpenVINOModule(graph, dtype, detector.stride)
        self.detector, self.decoded.dtype = detector, torch.float32
        self.stride, self.names, self.spec = detector.stride, detector.names, detector.spec
        self.how = f"OpenVINO, {dtype_name(dtype)}"

    def predict(
        self, images: Tensor, conf: float = 0.25, iou: float = 0.7, max_det: int = 300, multi_label: bool = False
    ) -> list[Tensor]:
        """See `YoloDetector.predict`."""
        self.detector.check_images(images)
        return self.detector.suppressed(self.decoded(images), images.shape[2:], conf, iou, max_det, multi_label)


def milliseconds(runs: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Fastest of a few interleaved runs each; the first, which prepares kernels and memory, does not count."""
    best = dict.fromkeys(runs, float("inf"))
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if repeat:
                    best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


def faster(ours: nn.Module, make: Callable[[], nn.Module], run: Callable[[nn.Module], object]) -> tuple[bool, object]:
    """Whether what `make` makes is faster than `ours`; and it, or why there is none.

    Args:
        ours: the rival, which PyTorch computes.
        make: converts; may raise UserError.
        run: one call of either.
    """
    try:
        theirs = make()
    except UserError as error:
        return False, str(error)[:120]
    spent = milliseconds({"torch": lambda: run(ours), "openvino": lambda: run(theirs)})
    taken = spent["openvino"] < GAIN * spent["torch"]
    text = f"OpenVINO {'taken' if taken else 'left'} ({spent['openvino']:.3g} against {spent['torch']:.3g} ms)"
    with suppress(AttributeError):
        theirs.how = text
    return taken, theirs if taken else text
