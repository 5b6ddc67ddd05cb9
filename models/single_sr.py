"""Front ends without masks: one SR network everywhere, and HR images as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.arbitrary_scale import seeded
from models.front_end import ConditionalOutput, Policy, Preparation
from models.sr_network import SRNetwork
from models.tiling.run_patches import DEFAULT
from models.tiling.tile_plan import choose_patch
from models.tiling.whole import run_whole
from utils.errors import UserError
from utils.flops_counter import count_macs_at
from utils.optimizer_utils import split_tail

ROLE = "sr"
INSIDE = "network."  # where the network's tensors are in the module, but not in its state dict


class SingleSR(nn.Module):
    """One SR network everywhere.

    Its state dict is that of the network, so checkpoints hold no trace of what is around it.

    Args:
        network: SR network of a whole scale.
        zoom: pixels of its images per HR canvas pixel.
        max_pixels: most LR pixels in one call; larger images are computed in parts.
    """

    sees_hr = False
    patch = None

    def __init__(self, network: SRNetwork, zoom: float = 1, max_pixels: int = DEFAULT.max_pixels):
        super().__init__()
        self.network, self.zoom, self.max_pixels = network, zoom, max_pixels
        self.scale = network.scale
        self.register_state_dict_post_hook(_without_inside)
        self.register_load_state_dict_pre_hook(_with_inside)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {ROLE: self.network}

    @property
    def spec(self) -> dict:
        return self.network.spec

    def train(self, mode: bool = True) -> SingleSR:
        """Training mode, except for a network of which nothing learns: its BatchNorm statistics stay."""
        super().train(mode)
        if not any(p.requires_grad for p in self.network.parameters()):
            self.network.eval()
        return self

    def forward(
        self,
        images: Tensor,
        tau: float = 1.0,
        noise: Tensor | None = None,
        shares: Tensor | None = None,
        content: Tensor | None = None,
    ) -> ConditionalOutput:
        """SR images in [0, 1], with gradient; only `images` is looked at."""
        return ConditionalOutput(self.network(images).clamp(0, 1))

    @torch.no_grad()
    def infer(self, images: Tensor, policy: Policy, content: Tensor | None = None) -> ConditionalOutput:
        """SR images in [0, 1]; only `images` is looked at."""
        return ConditionalOutput(run_whole(self.network, images, self.max_pixels).clamp_(0, 1))

    def choose(self, images: Tensor, policy: Policy, content: Tensor | None = None) -> None:
        """There are no masks."""

    def with_seed(self, seed: int) -> SingleSR:
        """The same front end, its weights shared, whose network draws the noise of this seed."""
        front = SingleSR(seeded(self.network, seed), self.zoom, self.max_pixels)
        front.training = self.training
        return front

    def parameter_parts(self) -> dict[str, list[nn.Parameter]]:
        tail, body = split_tail(self.network)
        return {f"{ROLE}/tail": tail, f"{ROLE}/body": body}

    def macs(self, height: int, width: int, patches: int, masker: bool = True) -> int:
        """MACs for one image; `patches` and `masker` change nothing."""
        return count_macs_at(self.network, height, width)

    def networks_run(self, height: int, width: int, patches: Sequence[int], masker: bool = True) -> list[nn.Module]:
        return [self.network]

    def with_execution(self, **changes) -> SingleSR:
        """Raises UserError: there are no patches whose execution could differ."""
        raise UserError(f"{', '.join(changes)}: this front end has no masker and runs on whole images; leave it out")

    def prepared(self, preparation: Preparation) -> SingleSR:
        _, network = preparation.in_place(
            self.network, preparation.network(self.network), choose_patch(128, 128), halo=None
        )
        return SingleSR(network, self.zoom, preparation.max_pixels(self.network)).eval()


def _without_inside(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
    for key in [key for key in state if key.startswith(prefix + INSIDE)]:
        state[prefix + key.removeprefix(prefix + INSIDE)] = state.pop(key)


def _with_inside(module: nn.Module, state: dict, prefix: str, *more) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + INSIDE + key.removeprefix(prefix)] = state.pop(key)


class HRImages(nn.Module):
    """Front end of a detector that is trained and run on HR images, the upper bound: it shows them as they are."""

    scale = 1
    zoom: float = 1
    sees_hr = True
    patch = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {}

    @property
    def spec(self) -> dict:
        return {"name": "hr", "args": {}}

    def forward(
        self,
        images: Tensor,
        tau: float = 1.0,
        noise: Tensor | None = None,
        shares: Tensor | None = None,
        content: Tensor | None = None,
    ) -> ConditionalOutput:
        """The images, as a tensor of its own; only `images` is looked at."""
        return ConditionalOutput(images.clamp(0, 1))

    @torch.no_grad()
    def infer(self, images: Tensor, policy: Policy, content: Tensor | None = None) -> ConditionalOutput:
        return self(images)

    def choose(self, images: Tensor, policy: Policy, content: Tensor | None = None) -> None:
        """There are no masks."""

    def with_seed(self, seed: int) -> HRImages:
        return self

    def parameter_parts(self) -> dict[str, list[nn.Parameter]]:
        return {}

    def macs(self, height: int, width: int, patches: int, masker: bool = True) -> int:
        return 0

    def networks_run(self, height: int, width: int, patches: Sequence[int], masker: bool = True) -> list[nn.Module]:
        return []

    def with_execution(self, **changes) -> HRImages:
        """Raises UserError: there are no patches whose execution could differ."""
        raise UserError(f"{', '.join(changes)}: this front end has no masker and runs on whole images; leave it out")

    def prepared(self, preparation: Preparation) -> HRImages:
        return self
