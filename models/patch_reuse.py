"""Conditional execution over time: patches of a video that did not change keep the SR that they have.

A patch is computed anew where any channel of any LR pixel in its window (the patch and the halo that its SR depends on)
differs from the same window at the time when it was last computed by more than a threshold. What is compared is always
that time, never the frame before, so slow changes add up until they are seen. A full refresh every N frames bounds what
stays below the threshold, and lets the policy choose again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.conditional_sr import ConditionalSR
from models.front_end import ConditionalOutput, Policy
from models.tiling.run_patches import expand_mask
from models.tiling.whole import run_whole
from utils.errors import UserError

GREY_LEVELS = 255
HALF_STEP = 1e-3  # of a grey level: images are whole grey levels, in floating point


@dataclass(frozen=True)
class ReuseOptions:
    """When a patch counts as unchanged.

    Args:
        threshold: largest change of a channel of a pixel in its window, in grey levels of 0..255; 0: none at all.
        refresh: every so many frames everything is computed anew.

    Raises:
        UserError: out of range.
    """

    threshold: float = 8.0
    refresh: int = 30

    def __post_init__(self):
        if not 0 <= self.threshold <= GREY_LEVELS:
            raise UserError(f"threshold is {self.threshold!r}; give grey levels from 0 to {GREY_LEVELS}")
        if self.refresh < 1:
            raise UserError(f"refresh is {self.refresh!r}; give a number of frames, 1 or more")


class PatchReuse:
    """Super-resolves the frames of one video, one at a time and in order.

    Args:
        front: inference copy of a front end with patches.
        options: when a patch counts as unchanged.

    Attributes:
        kept: bool (gh, gw), true for the patches of the last frame that kept their SR; None before the first.

    Raises:
        UserError: windows of SR_Quality fade into each other, so a patch depends on which of its neighbours are chosen.
    """

    def __init__(self, front: ConditionalSR, options: ReuseOptions):
        networks = (front.sr_fast, front.sr_quality)
        if any(network.capabilities.blend for network in networks):
            raise UserError("reuse: windows of this SR_Quality fade into each other, so patches do not stand alone")
        quality = front.execution.halo
        halos = [front.sr_fast.capabilities.halo, front.sr_quality.capabilities.halo if quality is None else quality]
        self.front, self.options, self.halo = front, options, max(halos)
        self.kept: Tensor | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all frames: the next one begins another video."""
        self._age = 0
        self._size: tuple[int, ...] | None = None  # of the frames: a grid holds frames of several sizes
        self._seen: Tensor | None = None  # (gh, gw, 3, window, window): each patch's window when it was last computed
        self._sr: Tensor | None = None
        self._mask: Tensor | None = None  # bool (1, gh, gw): where the SR is SR_Quality's

    @torch.no_grad()
    def __call__(self, lr: Tensor, policy: Policy, content: Tensor | None = None) -> ConditionalOutput:
        """SR image of the next frame, and the mask by which its patches were made, each at its own time.

        Args:
            lr: the frame (1, 3, h, w) in [0, 1].
            policy, content: as `ConditionalSR.infer`.

        Raises:
            ValueError: several frames at once.
        """
        if len(lr) != 1:
            raise ValueError(f"reuse takes one frame at a time, not {len(lr)}")
        windows = self._windows(lr)
        if self._seen is None or self._size != lr.shape or self._age >= self.options.refresh:
            return self._everything(lr, policy, content, windows)
        limit = (self.options.threshold + HALF_STEP) / GREY_LEVELS
        changed = (windows - self._seen).abs().amax((2, 3, 4)) > limit  # (gh, gw)
        self.kept, self._age = ~changed, self._age + 1
        if bool(changed.any()):
            self._recompute(lr, policy, content, changed[None])
            self._seen[changed] = windows[changed]
        return self._output()

    def _everything(self, lr: Tensor, policy: Policy, content: Tensor | None, windows: Tensor) -> ConditionalOutput:
        """As without reuse."""
        made = self.front.infer(lr, policy, content)
        assert made.mask is not None  # a ConditionalSR always says where SR_Quality ran
        self._sr, self._mask, self._seen, self._age = made.sr.clone(), made.mask[:, 0] > 0.5, windows.clone(), 1
        self._size = lr.shape
        self.kept = torch.zeros_like(self._mask[0])
        return made

    def _recompute(self, lr: Tensor, policy: Policy, content: Tensor | None, changed: Tensor) -> None:
        """Replace the changed patches (1, gh, gw) of the SR image by what the policy chooses for them."""
        front = self.front
        policy = front.within_latency(policy, lr, content)
        logits = front.masker(lr) if policy.needs_masker else None
        chosen = policy.select(lr, logits, front.patch, content)
        assert self._sr is not None and self._mask is not None
        fast = run_whole(front.sr_fast, lr, front.execution.tiles.max_pixels, front.patch)
        pixels = expand_mask(changed, front.patch * front.scale, *fast.shape[-2:])
        held = F.pad(self._sr, (0, fast.shape[-1] - self._sr.shape[-1], 0, fast.shape[-2] - self._sr.shape[-2]))
        canvas = torch.where(pixels, fast, held.to(fast.dtype))
        if bool((chosen & changed).any()):
            canvas = front.quality_on_patches(lr, chosen & changed, canvas)
        self._sr = canvas[..., : self._sr.shape[-2], : self._sr.shape[-1]].clamp(0, 1)
        self._mask = torch.where(changed, chosen, self._mask)

    def _output(self) -> ConditionalOutput:
        assert self._sr is not None and self._mask is not None
        return ConditionalOutput(self._sr.clone(), self._mask[:, None].float())

    def _windows(self, lr: Tensor) -> Tensor:
        """What the SR of each patch depends on, (gh, gw, 3, patch + 2 * halo, patch + 2 * halo), a view."""
        patch, halo = self.front.patch, self.halo
        bottom, right = (-side % patch for side in lr.shape[-2:])
        padded = F.pad(lr[0], (halo, halo + right, halo, halo + bottom))
        size = patch + 2 * halo
        return padded.unfold(1, size, patch).unfold(2, size, patch).permute(1, 2, 0, 3, 4)
