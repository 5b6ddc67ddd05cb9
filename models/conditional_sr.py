"""ConditionalSR: a cheap SR network everywhere, a strong one on the patches that a Masker selects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from deployment.native_execution import NativeNetwork
from models.content import image_patches
from models.mask_policy import BestPatches, MaskPolicy
from models.masker import Masker, patch_grid
from models.tiling.execution import DEFAULT, TileOptions, expand_mask, run_everywhere, run_on_tiles, run_whole
from utils.errors import UserError
from utils.gumbel import gumbel_softmax, keep_probability


class LatencyPredictor(Protocol):
    """Knows how long this system takes on its device.

    Attributes:
        in_place: patches were run by the native kernel when it was measured.
    """

    in_place: bool

    def largest_share(self, milliseconds: float, height: int, width: int, batch: int) -> float:
        """Largest kept share in [0, 1] with which an LR image takes at most this long, detector included."""


@dataclass(frozen=True)
class ConditionalOutput:
    """What ConditionalSR returns.

    Args:
        sr: SR images (B, 3, scale * h, scale * w) in [0, 1].
        mask: patches (B, 1, gh, gw), 1 where SR_Quality was taken, else 0; its mean over the patches that hold image
            (all, where no content was given) is the kept share. None where one network runs everywhere.
        probability: the masker's probability of quality (B, 1, gh, gw), None where the masker did not run.
        score: how strongly the masker speaks for quality, the difference of its logits (B, 1, gh, gw); None likewise.
    """

    sr: torch.Tensor
    mask: torch.Tensor | None
    probability: torch.Tensor | None
    score: torch.Tensor | None = None


class ConditionalSR(nn.Module):
    """sr = mask * sr_quality(lr) + (1 - mask) * sr_fast(lr), mask = masker(lr) patch by patch.

    `forward` runs both networks everywhere and is differentiable; `infer` runs sr_quality on the selected patches only.

    Args:
        masker: decides patch by patch.
        sr_fast: light network.
        sr_quality: strong network of the same scale.
        halo: LR pixels of real neighbours around a patch when sr_quality runs on patches; None is exact.
        options: how patches are run.

    Attributes:
        train_tiles: `forward` computes sr_quality on tiles as `infer` does, with short halos, instead of densely; a
            system trained so is executed so, not by the native kernel, whose patches end a little differently.
        native: runs sr_quality on patches instead of tiles; None unless `prepare_system` found it to be faster.
        latency: predicts milliseconds, for the policy latency_ms; None where none was attached.

    Raises:
        ValueError: the two networks have different scales.
    """

    def __init__(
        self,
        masker: Masker,
        sr_fast: nn.Module,
        sr_quality: nn.Module,
        halo: int | None = None,
        options: TileOptions = DEFAULT,
    ):
        super().__init__()
        if sr_fast.scale != sr_quality.scale:
            raise UserError(
                f"sr_fast is x{sr_fast.scale} but sr_quality is x{sr_quality.scale}; build both for the same scale"
            )
        self.masker = masker
        self.sr_fast = sr_fast
        self.sr_quality = sr_quality
        self.halo = halo
        self.options = options
        self.scale = sr_fast.scale
        self.patch = masker.patch
        self.train_tiles = False
        self.native: NativeNetwork | None = None
        self.latency: LatencyPredictor | None = None

    def fuse(self, fast: torch.Tensor, quality: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Mix two HR images (B, 3, H, W) by a patch mask (B, 1, gh, gw), upsampled to pixels."""
        pixels = expand_mask(mask[:, 0], self.patch * self.scale, *fast.shape[-2:])  # (B, 1, H, W)
        return pixels * quality + (1 - pixels) * fast

    def forward(
        self,
        lr: torch.Tensor,
        tau: float = 1.0,
        noise: torch.Tensor | None = None,
        shares: torch.Tensor | None = None,
        content: torch.Tensor | None = None,
    ) -> ConditionalOutput:
        """Both networks everywhere, differentiable.

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            tau: temperature of the Gumbel-Softmax.
            noise: Gumbel noise (B, 2, gh, gw); ignored in eval mode, where nothing is left to chance.
            shares: kept share of every image (B,), None leaves it to the masker; ignored in eval mode.
            content: which part of the images is no padding, see models/content.py; patches of padding are never kept
                and have no part in the masker's statistics.
        """
        image = image_patches(content, lr.shape[-2:], self.patch)
        if image is None:
            logits, shown = self.masker(lr), None  # (B, 2, gh, gw)
        else:
            logits, shown = self.masker.on_image(lr, image), image[:, None].to(lr.device, non_blocking=True)
        chance = {"noise": noise, "shares": shares} if self.training else {}
        mask = gumbel_softmax(logits, tau, **chance, image=shown)
        if self.train_tiles:
            quality = run_everywhere(self.sr_quality, lr, mask[:, 0] > 0.5, self.patch, self.halo, self.options)
        else:
            quality = self.sr_quality(lr)
        sr = self.fuse(self.sr_fast(lr), quality, mask)
        score = (logits[:, 1:] - logits[:, :1]).float()
        return ConditionalOutput(sr.clamp(0, 1), mask, keep_probability(logits, tau), score)

    @torch.no_grad()
    def infer(self, lr: torch.Tensor, policy: MaskPolicy, content: torch.Tensor | None = None) -> ConditionalOutput:
        """Conditional execution: sr_fast everywhere, sr_quality on the patches that `policy` selects.

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            policy: which patches; the masker runs only where the policy looks at it.
            content: which part of the images is no padding, see models/content.py; None: all.

        Raises:
            RuntimeError: a BatchNorm layer is in training mode; its statistics would depend on the selected patches.
            ValueError: the policy is latency_ms, and there is no latency profile.
        """
        if any(module.training for module in self.modules() if isinstance(module, _BatchNorm)):
            raise RuntimeError("infer: a BatchNorm layer is in training mode; call eval() first")
        policy = self._within_latency(policy, lr, content)
        logits = self.masker(lr) if policy.needs_masker else None
        mask = policy.select(lr, logits, self.patch, content)  # (B, gh, gw)
        most = self.options.max_pixels
        if bool(mask.all()):  # nothing of sr_fast would be seen
            sr = run_whole(self.sr_quality, lr, most)
        else:
            fast = run_whole(self.sr_fast, lr, most, self.patch)
            sr = self.quality_on_patches(lr, mask, fast)
        probability = None if logits is None else keep_probability(logits)
        return ConditionalOutput(sr.clamp_(0, 1), mask[:, None].float(), probability)

    def quality_on_patches(self, lr: torch.Tensor, mask: torch.Tensor, canvas: torch.Tensor) -> torch.Tensor:
        """Replace the selected patches of `canvas` (B, 3, H, W) by sr_quality's output; mask is bool (B, gh, gw)."""
        most = self.options.max_pixels
        if self.native is not None and lr.shape[-2] * lr.shape[-1] <= most:
            return self.native.run(lr, mask, self.patch, self.halo, canvas, most)
        return run_on_tiles(self.sr_quality, lr, mask, self.patch, self.halo, canvas, self.options)

    def _within_latency(
        self, policy: MaskPolicy, lr: torch.Tensor, content: torch.Tensor | None
    ) -> MaskPolicy | BestPatches:
        """The number of patches that keeps a latency, for images of this shape; other policies as they are."""
        if policy.kind != "latency_ms":
            return policy
        if self.latency is None:
            raise UserError(
                f"mask policy {policy}: there is no latency profile; measure one with `python -m tools.latency` and "
                "name it with --profile"
            )
        share = self.latency.largest_share(policy.value, *lr.shape[-2:], lr.shape[0])
        if share == 1 and content is not None:  # one run, without SR_Fast, which the image's patches alone would need
            return MaskPolicy("all_quality")
        rows, columns = patch_grid(*lr.shape[-2:], self.patch)
        return BestPatches(round(share * rows * columns))
