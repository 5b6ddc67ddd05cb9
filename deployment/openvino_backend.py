"""OpenVINO as the backend of detectors and SR networks on CPUs: same result up to rounding, often faster; optional.

Modules are converted in memory when they are prepared (deployment/prepare.py); nothing is written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deployment.export.graphs import DetectorGraph
from deployment.export.traced import EXTRA, tracing
from deployment.fastest import fastest_ms
from deployment.openvino_core import openvino_core
from utils.device import dtype_name
from utils.errors import UserError
from utils.extras import require

if TYPE_CHECKING:
    from models.detector_yolo import YoloDetector

BACKENDS = ("native", "torch", "openvino", "auto")
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1}  # of the largest value
HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
GAIN = 0.95  # of the rival's time, see NATIVE_GAIN of deployment/prepare.py


def may_be_openvino(backend: str, device: torch.device) -> bool:
    """Whether OpenVINO is to be tried. Raises UserError where it is asked for and cannot be had."""
    if backend not in BACKENDS:
        raise UserError(f"backend is {backend!r}; use one of {', '.join(BACKENDS)}")
    if backend == "openvino" and device.type != "cpu":
        raise UserError("backend openvino computes on the CPU: add --device cpu, or take another backend")
    return device.type == "cpu" and (backend == "openvino" or (backend == "auto" and find_spec("openvino") is not None))


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
        settings = {"INFERENCE_PRECISION_HINT": HINTS[dtype], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self.dtype, self.own = dtype, threading.local()
        try:
            with tracing("OpenVINO"), torch.no_grad():
                model = openvino.convert_model(module, example_input=torch.rand(2, 3, *sides))
                self.compiled = openvino_core().compile_model(model, "CPU", settings)
        except UserError:
            raise
        except Exception as error:  # its front end raises types of its own
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"backend openvino: {type(module).__name__} cannot be converted ({reason})") from error

    def forward(self, images: Tensor) -> Tensor:
        if not hasattr(self.own, "request"):  # one a thread: two in one would take each other's result
            self.own.request = self.compiled.create_infer_request()
        (result,) = self.own.request.infer([images.float().contiguous().numpy()]).to_tuple()
        return torch.from_numpy(result).to(self.dtype)


def converted(network: nn.Module, rival: nn.Module, dtype: torch.dtype) -> OpenVINOModule:
    """An SR network, compared with its rival at two sizes that it was not traced with.

    Raises:
        UserError: it cannot be converted, or its graph holds for one size only.
    """
    ours = OpenVINOModule(deepcopy(network).cpu().eval(), dtype)
    for shape in ((1, 3, 32, 48), (2, 3, 21, 17)):
        lr = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                expected, got = rival(lr).float(), ours(lr).float()
        except RuntimeError as error:
            raise UserError(f"it does not run at other sizes ({' '.join(str(error).split())[:80]})") from error
        limit = TOLERANCE[dtype] * expected.abs().max()
        if got.shape != expected.shape or not (got - expected).abs().max() <= limit:
            raise UserError("it computes something else at other sizes")
    return ours


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

    def predict(self, images: Tensor, *limits, **choice) -> list[Tensor]:
        """See `YoloDetector.predict`."""
        self.detector.check_images(images)
        return self.detector.suppressed(self.decoded(images), images.shape[2:], *limits, **choice)


def chosen(
    ours: nn.Module, make: Callable[[], nn.Module | OpenVINODetector], run: Callable[[object], object]
) -> tuple[nn.Module | OpenVINODetector, str]:
    """Which of two is faster here: what PyTorch computes, or what OpenVINO does; and the decision for the log.

    Args:
        ours: what PyTorch computes.
        make: converts; may raise UserError, then it is ours.
        run: one call of either.
    """
    try:
        theirs = make()
    except UserError as error:
        return ours, f"no OpenVINO: {str(error)[:120]}"
    spent = fastest_ms({"torch": lambda: run(ours), "openvino": lambda: run(theirs)})
    taken = spent["openvino"] < GAIN * spent["torch"]
    how = f"OpenVINO {'taken' if taken else 'left'} ({spent['openvino']:.3g} against {spent['torch']:.3g} ms)"
    return theirs if taken else ours, how
