"""How many pixels a whole system can super-resolve and show its detector at once."""

from __future__ import annotations

import torch

from deployment.network_memory import layer_bytes
from models.system import ConditionalSRDetector

SR_BYTES = 24.0  # per pixel of the super-resolved image: itself, and a copy in the making
HELD = 3.0  # of `layer_bytes`: what later layers wait for is kept, and boxes are decoded (YOLO11n, fp32, CPU: measured)


def pixels_at_once(system: ConditionalSRDetector, dtype: torch.dtype, memory_mb: int) -> int:
    """LR pixels of an image whose super-resolved image and detection take about this much memory.

    What the SR networks themselves take is not in it: they run in parts of their own, see `prepare_system`.

    Args:
        system: before or after preparation.
        dtype: of the detector's computation.
        memory_mb: 10^6 bytes.
    """
    detector = system.detector
    with torch.no_grad():
        each = SR_BYTES + HELD * layer_bytes(detector, 2 * detector.stride, dtype)
    return max(1, int(memory_mb * 1e6 / each / (system.front.scale * system.upscale) ** 2))
