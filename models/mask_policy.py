"""Which patches get SR_Quality at test time: chosen per call, without retraining.

Shares count the patches that hold image. Padding (see models/content.py) is neither looked at nor selected, but by
all_quality, which is one run of SR_Quality on the whole canvas.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from models.content import image_patches
from models.device_constants import on_device
from models.masker import patch_grid
from models.tiling.counted import PatchNumbers
from utils.errors import UserError

POLICIES = {
    "learned": "the masker's own decision",
    "threshold": "patches whose quality probability exceeds T in [0, 1]",
    "budget": "the share R in [0, 1] of the image's patches with the highest quality probability",
    "latency_ms": "as many patches as an image may have to take at most T milliseconds, detector included",
    "all_fast": "no patch",
    "all_quality": "every patch, those of the padding included",
    "random": "the share R in [0, 1] of the image's patches, by chance",
    "edge": "the share R in [0, 1] of the image's patches with the highest gradient energy",
}
WITH_VALUE = {"threshold": "T", "budget": "R", "latency_ms": "T", "random": "R", "edge": "R"}
WITH_SHARE = ("budget", "random", "edge")
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
        elif self.kind == "latency_ms" and not 0 < self.number < float("inf"):
            problem = f"{self.value} are no milliseconds"
        elif self.kind in WITH_VALUE and self.kind != "latency_ms" and not 0 <= self.number <= 1:
            problem = f"the value {self.value} is outside [0, 1]"
        if problem:
            raise UserError(f"mask policy {str(self)!r}: {problem}; the valid forms are\n{valid_forms()}")

    def __str__(self) -> str:
        return self.kind if self.value is None else f"{self.kind}={self.value:g}"

    @property
    def number(self) -> float:
        """`value` of the kinds that take one."""
        assert self.value is not None  # see __post_init__
        return self.value

    @property
    def needs_masker(self) -> bool:
        """Whether `select` looks at the masker's logits."""
        return self.kind in WITH_MASKER

    def selects(self, patches: int, image: int) -> int | None:
        """How many of the patches of a canvas are selected, `image` of which hold image; None: the masker decides."""
        if self.kind in ("all_fast", "all_quality"):
            return patches if self.kind == "all_quality" else 0
        return round(self.number * image) if self.kind in WITH_SHARE else None

    def select(
        self, lr: torch.Tensor, logits: torch.Tensor | None, patch: int, content: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Select patches; deterministic, and every image is judged on its own, wherever on a canvas it lies.

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            logits: masker output (B, 2, gh, gw); may be None where `needs_masker` is false.
            patch: side of a patch in LR pixels; gh = ceil(h / patch), gw = ceil(w / patch).
            content: which part of the images is no padding, see models/content.py; None: all.

        Returns:
            Bool (B, gh, gw), true where SR_Quality runs. The kinds that take a share R select exactly round(R * n) of
            the n patches that hold image, in every image, the first in reading order where scores are equal.

        Raises:
            ValueError: logits are needed and missing, or the policy is latency_ms, which ConditionalSR makes a budget.
        """
        if self.kind == "latency_ms":
            raise UserError(f"mask policy {str(self)!r} has to become a budget before patches can be selected")
        rows, columns = patch_grid(lr.shape[-2], lr.shape[-1], patch)
        shape = (lr.shape[0], rows, columns)
        if self.kind in ("all_fast", "all_quality"):
            return torch.full(shape, self.kind == "all_quality", device=lr.device)
        image = image_patches(content, lr.shape[-2:], patch)
        if self.kind == "random":
            return top_share(random_scores(lr, shape, content, image), self.number, image)
        if self.kind == "edge":
            return top_share(gradient_energy(lr, patch, content), self.number, image)
        if logits is None:
            raise UserError(f"mask policy {str(self)!r} needs the masker's logits")
        score = (logits[:, 1] - logits[:, 0]).float()  # (B, gh, gw)
        if self.kind == "budget":
            return top_share(score, self.number, image)
        return _and_image(score.sigmoid() > self.number if self.kind == "threshold" else score > 0, image)


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


def top_share(score: torch.Tensor, share: float, image: torch.Tensor | None = None) -> torch.Tensor:
    """Mark the round(share * n) highest scores of every image (B, gh, gw), ties by index.

    Args:
        score: (B, gh, gw).
        share: in [0, 1].
        image: bool (B, gh, gw) on the CPU, true at the n patches that hold image, see `image_patches`; None: all.
    """
    return _highest(score, lambda patches: round(share * patches), image)


def _highest(score: torch.Tensor, count: Callable[[int], int], image: torch.Tensor | None) -> torch.Tensor:
    """Mark the count(n) highest scores of every image, n as in `top_share`."""
    flat = score.flatten(1)
    if image is not None:
        flat = flat.masked_fill(~on_device(image, flat.device).flatten(1), -torch.inf)
    return mark_first(flat.argsort(dim=1, descending=True, stable=True), count, image).view_as(score)


def mark_first(order: torch.Tensor, count: Callable[[int], int], image: torch.Tensor | None) -> torch.Tensor:
    """Bool (B, N), true at the first count(n) patches of every row of `order` (B, N), a permutation of the N patches.

    Args:
        order: patches that hold no image come last.
        count: from the number n of patches that hold image to that of the patches to mark, at most n.
        image: as in `top_share`, any shape (B, ...) of N patches.
    """
    chosen = torch.zeros_like(order, dtype=torch.bool)
    if image is None:
        return chosen.scatter_(1, order[:, : count(order.shape[1])], True)
    counts = torch.tensor([[count(patches)] for patches in image.flatten(1).sum(1).tolist()])
    first = torch.arange(order.shape[1]) < counts  # on the CPU, as the content is: nothing waits for the device
    return chosen.scatter_(1, order, on_device(first, order.device))


def _and_image(mask: torch.Tensor, image: torch.Tensor | None) -> torch.Tensor:
    """The selected patches (B, gh, gw) that hold image."""
    return mask if image is None else mask & on_device(image, mask.device)


def random_scores(
    lr: torch.Tensor,
    shape: tuple[int, int, int],
    content: torch.Tensor | None = None,
    image: torch.Tensor | None = None,
) -> torch.Tensor:
    """Random scores (B, gh, gw) seeded by each image's 8-bit pixels: the same image always gets the same ones.

    Padding takes no part: an image whose first pixel is that of a patch gets the scores of the bare image.

    Args:
        lr: LR images (B, 3, h, w) in [0, 1].
        shape: of the result.
        content: see models/content.py.
        image: the patches that hold image, as from `image_patches`; the others score 0.
    """
    images = lr.float().mul(255).round().to(torch.uint8).cpu().contiguous().numpy()
    rectangles = [[(0, 0, *lr.shape[-2:])]] * len(images) if content is None else content.tolist()
    scores = torch.zeros(shape)
    for row, (pixels, parts) in enumerate(zip(images, rectangles, strict=True)):
        bare = b"".join(pixels[:, top:bottom, left:right].tobytes() for top, left, bottom, right in parts)
        where = torch.ones(shape[1:], dtype=torch.bool) if image is None else image[row]
        generator = torch.Generator().manual_seed(zlib.crc32(bare))
        scores[row][where] = torch.rand(int(where.sum()), generator=generator)
    return scores.to(lr.device)


def gradient_energy(lr: torch.Tensor, patch: int, content: torch.Tensor | None = None) -> torch.Tensor:
    """Sum of squared grey-level differences to the right and lower neighbour in every patch, (B, gh, gw).

    Only differences between two pixels of an image count: neither the padding, see models/content.py, nor the step from
    the image to it. An image whose first pixel is that of a patch has the energies of the bare image.
    """
    height, width = lr.shape[-2:]
    rows, columns = patch_grid(height, width, patch)
    grey = lr.float().mean(1, keepdim=True)  # (B, 1, h, w)
    if content is None:
        return _energy(grey, patch, 0, 0)
    energy = grey.new_zeros(len(lr), rows, columns)
    for image, parts in enumerate(content.tolist()):
        for top, left, bottom, right in parts:
            if top < bottom and left < right:
                own = _energy(grey[image : image + 1, :, top:bottom, left:right], patch, top % patch, left % patch)
                row, column = top // patch, left // patch
                energy[image, row : row + own.shape[1], column : column + own.shape[2]] += own[0]
    return energy


def _energy(grey: torch.Tensor, patch: int, down: int, right: int) -> torch.Tensor:
    """`gradient_energy` of grey-level images (B, 1, h, w) whose first pixel is (down, right) of their first patch."""
    height, width = grey.shape[-2:]
    rows, columns = patch_grid(down + height, right + width, patch)
    energy = F.pad(grey.diff(dim=3).square(), (0, 1)) + F.pad(grey.diff(dim=2).square(), (0, 0, 0, 1))
    energy = F.pad(energy, (right, columns * patch - width - right, down, rows * patch - height - down))
    return energy.view(-1, rows, patch, columns, patch).sum((2, 4))


@dataclass(frozen=True)
class BestPatches:
    """A mask policy: so many patches of every image, those with the highest quality probability (all, if it has fewer).

    What latency_ms comes to: milliseconds buy a number of patches, whatever share of the canvas is image.
    """

    count: int
    kind: str = "patches"
    needs_masker: bool = True

    def selects(self, patches: int, image: int) -> int:
        """As `MaskPolicy.selects`."""
        return min(self.count, image)

    def select(
        self, lr: torch.Tensor, logits: torch.Tensor | None, patch: int, content: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `MaskPolicy.select`."""
        assert logits is not None  # see needs_masker
        image = image_patches(content, lr.shape[-2:], patch)
        return _highest((logits[:, 1] - logits[:, 0]).float(), lambda patches: min(self.count, patches), image)


@dataclass(frozen=True)
class CountedMask:
    """A mask policy: exactly the patches of a bool mask (B, gh, gw) whose numbers the host knows.

    What another policy comes to once it has selected, see `ConditionalSR.settled`.
    """

    mask: torch.Tensor
    numbers: PatchNumbers
    kind: str = "counted"
    needs_masker: bool = False

    def selects(self, patches: int, image: int) -> None:
        """As `MaskPolicy.selects`; `numbers` tells."""

    def select(
        self, lr: torch.Tensor, logits: torch.Tensor | None, patch: int, content: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `MaskPolicy.select`."""
        return self.mask


@dataclass(frozen=True)
class GivenMask:
    """A mask policy: those patches of a bool mask (B, gh, gw) that hold image; the masker runs all the same, unless
    `needs_masker` is false."""

    mask: torch.Tensor
    kind: str = "given"
    needs_masker: bool = True

    def selects(self, patches: int, image: int) -> None:
        """As `MaskPolicy.selects`; the mask alone knows."""

    def select(
        self, lr: torch.Tensor, logits: torch.Tensor | None, patch: int, content: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `MaskPolicy.select`."""
        return _and_image(self.mask, image_patches(content, lr.shape[-2:], patch))
