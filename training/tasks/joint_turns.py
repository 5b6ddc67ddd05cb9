"""Who learns in a step of stage 3, and from which images: pure functions of the step."""

from __future__ import annotations

import math


def turn_of(step: int, hr_share: float, alternate: bool) -> tuple[str, bool]:
    """Who learns in this step, "both", "front" or "detector", and whether the detector sees HR images in it."""
    if not alternate:
        hr_step = is_hr_step(step, hr_share)
        return "detector" if hr_step else "both", hr_step
    if step % 2 == 0:
        return "front", False
    return "detector", is_hr_step(step // 2, 2 * hr_share)


def is_hr_step(step: int, share: float) -> bool:
    """Whether the detector sees HR images in this step: a share of the steps, evenly spread, the first one never."""
    return math.floor((step + 1) * share) > math.floor(step * share)
