"""What stands in front of a detector and makes the images that it sees: the protocol that all front ends share.

There are three: a ConditionalSR, one SR network everywhere (SingleSR), and HR images as they are (HRImages). Whoever
trains, prepares, measures or runs a system asks its front end, never what kind it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from torch import Tensor, nn

from models.execution import PatchRunner
from models.sr_network import SRNetwork

if TYPE_CHECKING:
    from models.calls import Calls

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class ConditionalOutput:
    """What a front end makes.

    Args:
        sr: SR images (B, 3, scale * h, scale * w) in [0, 1].
        mask: patches (B, 1, gh, gw), 1 where SR_Quality was taken, else 0; its mean is the kept share. None where one
            network runs everywhere.
        probability: the masker's probability of quality (B, 1, gh, gw), None where the masker did not run.
        score: how strongly the masker speaks for quality, the difference of its logits (B, 1, gh, gw); None likewise.
    """

    sr: Tensor
    mask: Tensor | None = None
    probability: Tensor | None = None
    score: Tensor | None = None


class Policy(Protocol):
    """Selects the patches that get SR_Quality; see `MaskPolicy`."""

    @property
    def kind(self) -> str: ...

    @property
    def needs_masker(self) -> bool: ...

    def selects(self, patches: int, image: int) -> int | None: ...

    def select(self, lr: Tensor, logits: Tensor | None, patch: int, content: Tensor | None = None) -> Tensor: ...


class Preparation(Protocol):
    """Makes inference copies for one device and precision; see deployment/prepare.py."""

    @property
    def overhead(self) -> float: ...

    @property
    def counted(self) -> bool:
        """See `Execution.counted`."""

    def calls(self) -> Calls:
        """How front end and detector are called."""

    def network(self, network: SRNetwork) -> SRNetwork:
        """Inference copy of an SR network."""

    def module(self, module: Module) -> Module:
        """Inference copy of anything else that is called with images."""

    def in_place(
        self, network: SRNetwork, prepared: SRNetwork, patch: int, halo: int | None
    ) -> tuple[PatchRunner | None, SRNetwork]:
        """What to run on patches, None for tiles of the inference copy; and what to run on whole images."""

    def runner(self, network: SRNetwork) -> PatchRunner:
        """What runs patches in place, fast or not."""

    def max_pixels(self, *networks: SRNetwork) -> int:
        """Most LR pixels in one call of these networks."""


class FrontEnd(Protocol):
    """Makes the images that a detector sees.

    Attributes:
        scale: pixels of its images per pixel of those that it takes.
        zoom: pixels of its images per HR canvas pixel; more than 1 for a detector with a larger input.
        sees_hr: it takes HR images instead of LR images.
        patch: side of a mask patch in LR pixels; None where there are no masks.
        networks: what it consists of, by role.
        spec: plain values from which `build_front` builds it again.
    """

    scale: int
    zoom: float
    sees_hr: bool

    @property
    def patch(self) -> int | None: ...

    @property
    def networks(self) -> dict[str, nn.Module]: ...

    @property
    def spec(self) -> dict: ...

    def __call__(
        self,
        images: Tensor,
        /,
        tau: float = 1.0,
        noise: Tensor | None = None,
        shares: Tensor | None = None,
        content: Tensor | None = None,
    ) -> ConditionalOutput:
        """For training, with gradient; see `ConditionalSR.forward` for what one with masks makes of the rest."""

    def infer(self, images: Tensor, /, policy: Policy, content: Tensor | None = None) -> ConditionalOutput:
        """For inference, without gradient; the policy is looked at where there are masks.

        Args:
            images: (B, 3, h, w) in [0, 1].
            policy: which patches get SR_Quality.
            content: which part of the images is no padding, see models/content.py; None: all.
        """

    def choose(self, images: Tensor, /, policy: Policy, content: Tensor | None = None) -> Tensor | None:
        """The mask bool (B, gh, gw) of images of any size, in bounded memory; None where there are no masks.

        `infer` with this mask (`GivenMask`), or with a part of it on that part of the image, then needs no masker.
        """

    def parameter_parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by role and, for SR networks, by part of the network: `sr_fast/tail`, `sr_fast/body`, ...; every
        parameter stands once."""

    def macs(self, height: int, width: int, patches: int, masker: bool = True) -> int:
        """MACs for one image, where SR_Quality runs on so many patches, and the masker or not."""

    def networks_run(self, height: int, width: int, patches: Sequence[int], masker: bool = True) -> list[nn.Module]:
        """The networks that run at all on images of this size; `patches` and `masker` as in `macs`, by image."""

    def with_execution(self, **changes) -> FrontEnd:
        """The same front end, its weights shared, with other fields of its `Execution`.

        Raises:
            UserError: it runs on whole images, and has none.
        """

    def with_seed(self, seed: int) -> FrontEnd:
        """The same front end, its weights shared, whose networks draw the noise of this seed, those that draw any."""

    def prepared(self, preparation: Preparation) -> FrontEnd:
        """Inference copy."""
