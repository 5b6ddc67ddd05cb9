"""ConditionalSR: a cheap SR network everywhere, a strong one on the patches that a Masker selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.arbitrary_scale import seeded
from models.conditional_cost import sr_macs
from models.content import image_patches
from models.execution import EXACT, Execution
from models.front_end import ConditionalOutput, Policy, Preparation
from models.mask_policy import BestPatches, CountedMask, MaskPolicy
from models.masker import Masker, patch_grid
from models.sr_network import SRNetwork
from models.tiling.blended import run_blended
from models.tiling.counted import PatchNumbers, run_counted, settle_numbers
from models.tiling.masker_tiles import masker_logits
from models.tiling.run_patches import expand_mask, geometry_of, run_everywhere, run_on_tiles
from models.tiling.tile_plan import Geometry
from models.tiling.whole import run_whole
from utils.device import sent
from utils.errors import UserError
from utils.gumbel import gumbel_softmax, keep_probability
from utils.optimizer_utils import split_tail


class ConditionalSR(nn.Module):
    """sr = mask * sr_quality(lr) + (1 - mask) * sr_fast(lr), mask = masker(lr) patch by patch.

    `forward` runs both networks everywhere and is differentiable; `infer` runs sr_quality on the selected patches only.

    Args:
        masker: decides patch by patch.
        sr_fast: light network.
        sr_quality: strong network of the same scale.
        execution: how it is run; nothing of it is learned.

    Raises:
        UserError: the two networks have different scales, or sr_quality cannot run on patches.
    """

    zoom: float = 1
    sees_hr = False

    def __init__(self, masker: Masker, sr_fast: SRNetwork, sr_quality: SRNetwork, execution: Execution = EXACT):
        super().__init__()
        if sr_fast.scale != sr_quality.scale:
            raise UserError(
                f"sr_fast is x{sr_fast.scale} but sr_quality is x{sr_quality.scale}; build both for the same scale"
            )
        if not sr_quality.capabilities.as_quality:
            raise UserError(f"{type(sr_quality).__name__} cannot run on patches; take another network as sr_quality")
        self.masker = masker
        self.sr_fast = sr_fast
        self.sr_quality = sr_quality
        self.execution = execution
        self.scale = sr_fast.scale
        self.patch = masker.patch

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"masker": self.masker, "sr_fast": self.sr_fast, "sr_quality": self.sr_quality}

    @property
    def spec(self) -> dict:
        """Plain values from which `build_front` builds it again."""
        masker, shared = self.masker, {"shared_stem": True} if self.masker.shares_stem else {}
        return {
            "name": "conditional",
            "args": shared
            | {
                "masker": {"patch": masker.patch, "channels": masker.channels, "bias": masker.bias},
                "sr_fast": self.sr_fast.spec,
                "sr_quality": self.sr_quality.spec,
                "halo": self.execution.halo,
                "train_tiles": self.execution.train_tiles,
            },
        }

    def with_execution(self, **changes) -> ConditionalSR:
        """The same front end, its weights shared, with other fields of its `execution`."""
        front = ConditionalSR(self.masker, self.sr_fast, self.sr_quality, replace(self.execution, **changes))
        front.training = self.training
        return front

    def with_seed(self, seed: int) -> ConditionalSR:
        """The same front end, its weights shared, whose networks draw the noise of this seed."""
        fast, quality = seeded(self.sr_fast, seed), seeded(self.sr_quality, seed)
        front = ConditionalSR(self.masker, fast, quality, self.execution)
        front.training = self.training
        return front

    def parameter_parts(self) -> dict[str, list[nn.Parameter]]:
        """The masker's own parameters, and tail and body of both networks; a shared stem belongs to sr_fast."""
        parts = {"masker": self.masker.own_parameters()}
        for role, network in (("sr_fast", self.sr_fast), ("sr_quality", self.sr_quality)):
            parts[f"{role}/tail"], parts[f"{role}/body"] = split_tail(network)
        return parts

    def train(self, mode: bool = True) -> ConditionalSR:
        """Training mode; what is fixed keeps its BatchNorm statistics, the front end itself goes on drawing masks."""
        super().train(mode)
        if mode:
            for role, network in self.networks.items():
                own = self.masker.own_parameters() if role == "masker" else network.parameters()
                if not any(parameter.requires_grad for parameter in own):
                    network.eval()
        return self

    def fuse(self, fast: torch.Tensor, quality: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Mix two HR images (B, 3, H, W) by a patch mask (B, 1, gh, gw), upsampled to pixels."""
        pixels = expand_mask(mask[:, 0], self.patch * self.scale, fast.shape[-2], fast.shape[-1])  # (B, 1, H, W)
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
            logits, shown = self.masker.on_image(lr, image), sent(image[:, None], lr.device)
        chance = {"noise": noise, "shares": shares} if self.training else {}
        mask = gumbel_softmax(logits, tau, **chance, image=shown)
        how = self.execution
        if how.train_tiles and self.sr_quality.capabilities.blend:
            quality = self.quality_in_windows(lr)
        elif how.train_tiles:
            selected = mask[:, 0] > 0.5
            quality = run_everywhere(self.sr_quality, lr, selected, self.patch, how.halo, how.tiles)
        else:
            quality = self.sr_quality(lr)
        sr = self.fuse(self.sr_fast(lr), quality, mask)
        score = (logits[:, 1:] - logits[:, :1]).float()
        return ConditionalOutput(sr.clamp(0, 1), mask, keep_probability(logits, tau), score)

    @torch.no_grad()
    def infer(self, lr: torch.Tensor, policy: Policy, content: torch.Tensor | None = None) -> ConditionalOutput:
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
        if self.execution.counted and not self.sr_quality.capabilities.blend:
            return self._infer_counted(*self.settled(lr, policy, content), lr, content)
        policy = self.within_latency(policy, lr, content)
        logits = self.masker(lr) if policy.needs_masker else None
        mask = policy.select(lr, logits, self.patch, content)  # (B, gh, gw)
        most = self.execution.tiles.max_pixels
        if bool(mask.all()):  # nothing of sr_fast would be seen
            blends = self.sr_quality.capabilities.blend
            sr = self.quality_in_windows(lr) if blends else run_whole(self.sr_quality, lr, most)
        else:
            fast = run_whole(self.sr_fast, lr, most, self.patch)
            sr = self.quality_on_patches(lr, mask, fast)
        probability = None if logits is None else keep_probability(logits)
        return ConditionalOutput(sr.clamp_(0, 1), mask[:, None].float(), probability)

    def numbers(self, policy: Policy, lr: torch.Tensor, content: torch.Tensor | None = None) -> PatchNumbers | None:
        """What will be run of images of this shape, where the policy tells beforehand; nothing waits."""
        if isinstance(policy, CountedMask):
            return policy.numbers
        image, geometry = image_patches(content, lr.shape[-2:], self.patch), self._geometry(lr)
        patches = geometry.grid[0] * geometry.grid[1]
        held = [patches] * len(lr) if image is None else image.flatten(1).sum(1).tolist()
        counts = [count for own in held if (count := policy.selects(patches, own)) is not None]
        return settle_numbers(counts, geometry) if len(counts) == len(held) else None

    @torch.no_grad()
    def settled(
        self, lr: torch.Tensor, policy: Policy, content: torch.Tensor | None = None
    ) -> tuple[Policy, torch.Tensor | None]:
        """A policy that selects the same of these images and whose numbers are known; the host waits once where only
        the device knows them, or the host alone can choose.

        Returns:
            The policy, and the masker's probability of quality where it had to run for this; see ConditionalOutput.
        """
        policy = self.within_latency(policy, lr, content)
        numbers = self.numbers(policy, lr, content)
        if numbers is not None and policy.kind != "random":
            return policy, None
        logits = self.masker(lr) if policy.needs_masker else None
        mask = policy.select(lr, logits, self.patch, content)
        if numbers is None:
            numbers = settle_numbers(mask.flatten(1).sum(1).tolist(), self._geometry(lr), exact=False)
        return CountedMask(mask, numbers), None if logits is None else keep_probability(logits)

    def _geometry(self, lr: torch.Tensor) -> Geometry:
        return geometry_of(self.sr_quality, lr, self.patch, self.execution.halo)

    def _infer_counted(
        self, policy: Policy, probability: torch.Tensor | None, lr: torch.Tensor, content: torch.Tensor | None
    ) -> ConditionalOutput:
        """`infer` for a policy as from `settled`; nothing waits for the device."""
        numbers, most = self.numbers(policy, lr, content), self.execution.tiles.max_pixels
        assert numbers is not None  # see settled
        if policy.needs_masker:
            logits = self.masker(lr)
            mask, probability = policy.select(lr, logits, self.patch, content), keep_probability(logits)
        else:
            mask = policy.select(lr, None, self.patch, content)
        if numbers.everything:
            sr = run_whole(self.sr_quality, lr, most)
        else:
            fast, halo = run_whole(self.sr_fast, lr, most, self.patch), self.execution.halo
            sr = run_counted(self.sr_quality, lr, mask, numbers, self.patch, halo, fast, most)
        return ConditionalOutput(sr.clamp_(0, 1), mask[:, None].float(), probability)

    @torch.no_grad()
    def choose(self, lr: torch.Tensor, policy: Policy, content: torch.Tensor | None = None) -> torch.Tensor:
        """See `FrontEnd.choose`; a share is one of all patches of an image, however large."""
        policy = self.within_latency(policy, lr, content)
        most = self.execution.tiles.max_pixels
        logits = masker_logits(self.masker, lr, self.patch, most) if policy.needs_masker else None
        return policy.select(lr, logits, self.patch, content)

    def quality_on_patches(self, lr: torch.Tensor, mask: torch.Tensor, canvas: torch.Tensor) -> torch.Tensor:
        """Replace the selected patches of `canvas` (B, 3, H, W) by sr_quality's output; mask is bool (B, gh, gw)."""
        how = self.execution
        if self.sr_quality.capabilities.blend:
            canvas = canvas[..., : lr.shape[-2] * self.scale, : lr.shape[-1] * self.scale]
            return self.quality_in_windows(lr, mask, canvas)
        if how.patches is not None and lr.shape[-2] * lr.shape[-1] <= how.tiles.max_pixels:
            return how.patches.run(lr, mask, self.patch, how.halo, canvas, how.tiles.max_pixels)
        return run_on_tiles(self.sr_quality, lr, mask, self.patch, how.halo, canvas, how.tiles)

    def quality_in_windows(
        self, lr: torch.Tensor, mask: torch.Tensor | None = None, base: torch.Tensor | None = None
    ) -> torch.Tensor:
        """sr_quality patch by patch, each fading into its neighbours or into `base`; see models/tiling/blended.py."""
        size, how = (lr.shape[-2] * self.scale, lr.shape[-1] * self.scale), self.execution
        return run_blended(self.sr_quality, lr, size, self.patch, how.halo, how.tiles.max_pixels, mask, base)

    def macs(self, height: int, width: int, patches: float, masker: bool = True) -> int:
        """MACs that `infer` executes for one image; see models/conditional_cost.py."""
        return sr_macs(self, height, width, patches, masker)

    def networks_run(self, height: int, width: int, patches: Sequence[int], masker: bool = True) -> list[nn.Module]:
        """SR_Quality where any patch is kept, SR_Fast where any is not, and the masker where the policy looks at it."""
        rows, columns = patch_grid(height, width, self.patch)
        run = {
            "masker": masker,
            "sr_fast": any(count < rows * columns for count in patches),
            "sr_quality": any(patches),
        }
        return [network for role, network in self.networks.items() if run[role]]

    def prepared(self, preparation: Preparation) -> ConditionalSR:
        """Inference copy; a latency profile decides how patches are run: as when it was measured."""
        how, masker, sr_fast = self.execution, preparation.module(self.masker), preparation.network(self.sr_fast)
        sr_quality = preparation.network(self.sr_quality)
        runner, sr_quality = preparation.in_place(self.sr_quality, sr_quality, self.patch, how.halo)
        runner = None if how.train_tiles else runner
        if how.latency is not None and how.latency.in_place != (runner is not None):
            runner = preparation.runner(self.sr_quality) if how.latency.in_place else None
        pixels = preparation.max_pixels(self.sr_fast, self.sr_quality)
        tiles = replace(how.tiles, max_pixels=pixels, overhead=preparation.overhead)
        how = replace(how, tiles=tiles, patches=runner, counted=preparation.counted)
        return ConditionalSR(masker, sr_fast, sr_quality, how).eval()

    def within_latency(self, policy: Policy, lr: torch.Tensor, content: torch.Tensor | None) -> Policy:
        """The number of patches that keeps a latency, for images of this shape; other policies as they are."""
        if not isinstance(policy, MaskPolicy) or policy.kind != "latency_ms":
            return policy
        latency = self.execution.latency
        if latency is None:
            raise UserError(
                f"mask policy {policy}: there is no latency profile; measure one with `python -m tools.latency` and "
                "name it with --profile"
            )
        height, width = lr.shape[-2:]
        share = latency.largest_share(policy.number, height, width, lr.shape[0])
        if share == 1 and content is not None:  # one run, without SR_Fast, which the image's patches alone would need
            return MaskPolicy("all_quality")
        rows, columns = patch_grid(height, width, self.patch)
        return BestPatches(round(share * rows * columns))
