"""Detectors made ready for inference: folded and fused in PyTorch, or run by OpenVINO; same boxes."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deployment.fused_inference import FusionError, fuse_conv_blocks
from deployment.openvino_backend import OpenVINODetector, chosen, may_be_openvino
from utils.device import dtype_name

if TYPE_CHECKING:
    from models.detector_yolo import YoloDetector

DETECTOR_TOLERANCE = {torch.float32: 1e-2, torch.bfloat16: 0.5, torch.float16: 0.1}  # rounding of eager networks too
TF32_TOLERANCE = 0.1  # of fp32 on CUDA, whose convolutions may round to TF32's 10 bits: as for fp16


def prepare_detector(
    detector: YoloDetector, device: torch.device, dtype: torch.dtype, backend: str = "native"
) -> YoloDetector | OpenVINODetector:
    """Inference copy of a detector: fused in PyTorch, or run by OpenVINO, as the backend says.

    Raises:
        UserError: see `prepare_system`.
    """
    if not may_be_openvino(backend, device):
        return fused_detector(detector, device, dtype)
    plain = deepcopy(detector).cpu().eval()
    if backend == "openvino":
        return OpenVINODetector(plain, dtype)
    fused, side = fused_detector(detector, device, dtype), -(-320 // detector.stride) * detector.stride
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    best, how = chosen(fused, lambda: OpenVINODetector(plain, dtype), lambda one: one.predict(images))
    best.how = f"{best.how}, {how}"
    return best


def fused_detector(detector: YoloDetector, device: torch.device, dtype: torch.dtype) -> YoloDetector:
    """BatchNorm folded, on CPUs SiLU inside the convolutions; decoding stays fp32.

    Where that cannot be done, or changes what the detector sees, it is left as it is and `how` says why.
    """
    name = dtype_name(dtype)
    plain = deepcopy(detector).cpu().eval()
    fused = deepcopy(plain)
    try:
        fuse_conv_blocks(fused.net, dtype if device.type == "cpu" else None)
        fused = _in_type(fused, device, dtype)
        difference = _largest_difference(plain, fused, device, dtype)
        if not difference <= detector_tolerance(device, dtype):
            raise FusionError(f"its output would differ by {difference:.2g} of its spread")
        fused.how = f"{'BatchNorm folded' if device.type == 'cuda' else 'fused oneDNN convolutions'}, {name}"
        return fused
    except (FusionError, RuntimeError) as error:
        plain = _in_type(plain, device, dtype)
        plain.how = f"eager, {name} ({' '.join(str(error).split())[:120]})"
        return plain


def detector_tolerance(device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference that folding may make, see DETECTOR_TOLERANCE."""
    rounded = device.type == "cuda" and dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return TF32_TOLERANCE if rounded else DETECTOR_TOLERANCE[dtype]


def _in_type(detector: YoloDetector, device: torch.device, dtype: torch.dtype) -> YoloDetector:
    """The same detector on its device, in its precision."""
    detector = detector.to(device, dtype).to(memory_format=torch.channels_last)
    for module in detector.head.children():
        if type(module).__name__ == "DFL":  # part of the decoding
            module.float()
    detector.dtype = dtype
    return detector


@torch.no_grad()
def _largest_difference(plain: YoloDetector, fused: YoloDetector, device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference of box and class logits, as a share of their spread, on a small drawn image."""
    side = 2 * plain.stride
    expected = plain.raw(drawn_image(side, torch.device("cpu"), torch.float32), one2one=False)
    got = fused.raw(drawn_image(side, device, dtype), one2one=False)
    expected, got = (raw.get("one2many", raw) for raw in (expected, got))
    pairs = [(expected[name].float(), got[name].float().cpu()) for name in ("boxes", "scores")]
    return max(((theirs - ours).abs().max() / theirs.std().clamp_min(1e-6)).item() for theirs, ours in pairs)


def drawn_image(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A drawn image (1, 3, side, side) in [0, 1], the same in all colours."""
    x = torch.linspace(0, 1, side)
    image = ((x * 37).sin() * (x[:, None] * 23).cos() * 0.5 + 0.5).expand(1, 3, side, side).contiguous()
    return image.to(device, dtype)
