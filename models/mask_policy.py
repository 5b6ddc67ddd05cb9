"""Which patches get SR_Quality at test time: chosen per call, without retraining."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from models.masker import patch_grid
from utils.errors import UserError

POLICIES = {
    "learned": "the masker's own decision",
    "threshold": "patches whose quality probability exceeds T in [0, 1]",
    "budget": "the share R in [0, 1] of patches with the highest quality probability",
    "latency_ms": "as many patches as an image may have to take at most T milliseconds, detector included",
    "all_fast": "no patch",
    "all_quality": "every patch",
    "random": "the share R in [0, 1] of patches, by chance",
    "edge": "the share R in [0, 1] of patches with the highest gradient energy",
}
WITH_VALUE = {"threshold": "T", "budget": "R", "latency_ms": "T", "random": "R", "edge": "R"}
WITH_MASKER = ("learned", "threshold", "budget", "latency_ms")


def valid_forms() -> str:
    """All policies as the user writes them, one a line."""
    names = {kind: f"{kind}={WITH_VALUE[kind]}" if kind in WITH_VALUE else kind for kind in POLICIES}
    return "\n".join(f"  {names[kind]:12} {meaning}" for kind, meaning in POLICIES.items())


@dataclass(frozen=True)
class MaskPolicy:
    """A rule that selects patches; build it with `parse_policy`.

    Args:
        kind: a key of POLICIES.
        value: threshold or share in [0, 1], or milliseconds; None for the kinds that take none.

    Raises:
        ValueError: unknown kind, value missing, not wanted or out of range; the message lists the valid forms.
    """

    kind: str
    value: float | None = None

    def __post_init__(self):
        problem = None
        if self.kind not in POLICIES:
            problem = f"unknown kind {self.kind!r}"
        elif self.kind not in WITH_VALUE and self.value is not None:
            problem = f"{self.kind} takes no value"
        elif self.kind in WITH_VALUE and self.value is None:
            problem = f"{self.kind} needs a value"
        elif self.kind == "latency_ms" and not 0 < self.value < float("inf"):
            problem = f"{self.value} are no milliseconds"
        elif self.kind in WITH_VALUE and self.kind != "latency_ms" and not 0 <= self.value <= 1:
            problem = f"the value {self.value} is outside [0, 1]"
        if problem:
            raise UserError(f"mask policy {str(self)!r}: {problem}; the valid forms are\n{valid_forms()}")

    def __str__(self) -> str:
        return self.kind if self.value is None else f"{self.kind}={self.value:g}"

    @property
    def needs_masker(self) -> bool:
        """Whether `select` looks at the masker's logits."""
        return self.kind in WITH_MASKER

    def select(self, lr: torch.Tensor, logits: torch.Tensor | None, patch: int) -> torch.Tensor:
        """Select patches; deterministic, and every image is judged on its own.

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            logits: masker output (B, 2, gh, gw); may be None where `needs_masker` is false.
            patch: side of a patch in LR pixels; gh = ceil(h / patch), gw = ceil(w / patch).

        Returns:
            Bool (B, gh, gw), true where SR_Quality runs. The kinds that take a share R select exactly
            round(R * gh * gw) patches of every image, the first in reading order where scores are equal.

        Raises:
            ValueError: logits are needed and missing, or the policy is latency_ms, which ConditionalSR makes a budget.
        """
        if self.kind == "latency_ms":
            raise UserError(f"mask policy {str(self)!r} has to become a budget before patches can be selected")
        if self.needs_masker and logits is None:
            raise UserError(f"mask policy {str(self)!r} needs the masker's logits")
        shape = (lr.shape[0], *patch_grid(*lr.shape[-2:], patch))
        if self.kind in ("all_fast", "all_quality"):
            return torch.full(shape, self.kind == "all_quality", device=lr.device)
        if self.kind == "random":
            return top_share(random_scores(lr, shape), self.value)
        if self.kind == "edge":
            return top_share(gradient_energy(lr, patch), self.value)
        score = (logits[:, 1] - logits[:, 0]).float()  # (B, gh, gw)
        if self.kind == "budget":
            return top_share(score, self.value)
        return score.sigmoid() > self.value if self.kind == "threshold" else score > 0


def parse_policy(text: str) -> MaskPolicy:
    """ "learned", "budget=0.25", ... -> MaskPolicy.

    Raises:
        ValueError: not a valid form; the message lists the valid ones.
    """
    kind, _, value = text.strip().partition("=")
    try:
        return MaskPolicy(kind.strip(), float(value) if "=" in text else None)
    except ValueError as error:
        if "valid forms" in str(error):
            raise
        raise UserError(f"mask policy {text!r}: {value!r} is no number; the valid forms are\n{valid_forms()}") from None


def top_share(score: torch.Tensor, share: float) -> torch.Tensor:
    """Mark the round(share * gh * gw) highest scores of every image (B, gh, gw), ties by index."""
    flat = score.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)[:, : round(share * flat.shape[1])]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True).view_as(score)


def random_scores(lr: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Random scores (B, gh, gw) seeded by each image's 8-bit pixels: the same image always gets the same ones."""
    images = lr.float().mul(255).round().to(torch.uint8).cpu().contiguous().numpy()
    seeds = [zlib.crc32(image.tobytes()) for image in images]
    scores = [torch.rand(shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(scores).to(lr.device)


def gradient_energy(lr: torch.Tensor, patch: int) -> torch.Tensor:
    """Sum of squared grey-level differences to the right and lower neighbour in every patch, (B, gh, gw)."""
    height, width = lr.shape[-2:]
    rows, columns = patch_grid(height, width, patch)
    grey = lr.float().mean(1, keepdim=True)  # (B, 1, h, w)
    energy = F.pad(grey.diff(dim=3).square(), (0, 1)) + F.pad(grey.diff(dim=2).square(), (0, 0, 0, 1))
    energy = F.pad(energy, (0, columns * patch - width, 0, rows * patch - height))
    return energy.view(-1, rows, patch, columns, patch).sum((2, 4))


@dataclass(frozen=True)
class GivenMask:
    """A mask policy that selects the patches of a mask (B, gh, gw), bool; the masker runs all the same."""

    mask: torch.Tensor
    kind: str = "given"
    needs_masker: bool = True

    def select(self, lr: torch.Tensor, logits: torch.Tensor, patch: int) -> torch.Tensor:
        return self.mask
