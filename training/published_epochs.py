"""How many epochs a data set would need to be seen as often as those of the published tables were."""

from __future__ import annotations

import math

PUBLISHED = {  # images seen: HIT-UAV, 480 images, 12, 6 and 8 epochs (docs/results/hit_uav_x4_edsr_8x32.md)
    "warm_up.quality_epochs": 480 * 12,
    "warm_up.epochs": 480 * 6,
    "optim.epochs": 480 * 8,
}
FEWEST = 3  # of a very large data set


def epochs_as_published(images: int) -> dict[str, int]:
    """Key of stage 3 -> epochs, for so many training images."""
    return {key: max(FEWEST, math.ceil(seen / images)) for key, seen in PUBLISHED.items()}


def proposal(images: int) -> str:
    """One line for the user."""
    words = ", ".join(f"{key} {epochs}" for key, epochs in epochs_as_published(images).items())
    return f"{images} training images: as many are seen as for the published tables with {words}"
