"""How a conditional front end is executed: settings that change time and memory, and nothing that is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from models.tiling.run_patches import DEFAULT, TileOptions


class PatchRunner(Protocol):
    """Runs SR_Quality on the selected patches in place, without windows of their own."""

    def run(
        self, lr: Tensor, mask: Tensor, patch: int, halo: int | None, canvas: Tensor, max_pixels: int = ...
    ) -> Tensor:
        """Replace the selected patches of `canvas`; arguments as `run_on_tiles`."""


class LatencyPredictor(Protocol):
    """Knows how long a system takes on its device.

    Attributes:
        in_place: patches were run by a PatchRunner when it was measured.
    """

    in_place: bool

    def largest_share(self, milliseconds: float, height: int, width: int, batch: int) -> float:
        """Largest kept share in [0, 1] with which an LR image takes at most this long, detector included."""


@dataclass(frozen=True)
class Execution:
    """How a ConditionalSR is executed.

    Args:
        halo: LR pixels of real neighbours around a patch when SR_Quality runs on patches; None is exact.
        train_tiles: training, too, computes SR_Quality on tiles with this halo instead of densely; a system trained so
            is executed so, not by a PatchRunner, whose patches end a little differently.
        tiles: how patches are run in windows.
        patches: what runs them instead; None runs tiles.
        latency: predicts milliseconds, for the policy latency_ms; None where there is no profile.
        counted: the number of patches is settled before they are run, one window for each, so that on a GPU nothing
            waits for the device; see models/tiling/counted.py.
    """

    halo: int | None = None
    train_tiles: bool = False
    tiles: TileOptions = DEFAULT
    patches: PatchRunner | None = None
    latency: LatencyPredictor | None = None
    counted: bool = False


EXACT = Execution()
