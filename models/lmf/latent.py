"""What passes from the latent stage of a Latent Modulated Function to its renderer, and what both offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from models.lmf.mlp import WIDTH, RenderMLP
from models.lmf.queries import Axis


@dataclass(frozen=True)
class Latent:
    """What the latent stage makes of B LR images of h x w pixels, N = h * w.

    Args:
        colours: LR images (B * N, 3) in [-1, 1].
        codes: (B * N, E), input of the renderer.
        modulations: (depth, B * N, 2 * WIDTH), 1 + scales and shifts of the render MLP.
        shape: (B, h, w).
    """

    colours: Tensor
    codes: Tensor
    modulations: Tensor
    shape: tuple[int, int, int]

    def strength(self) -> Tensor:
        """Mean absolute shift of each LR pixel (B, h, w): how much the render MLP is bent there."""
        return self.modulations[..., WIDTH:].abs().mean((0, 2)).reshape(self.shape)


class Encoder(Protocol):
    """Features of images in [-1, 1], (B, 3, h, w) to (B, n_feats, h, w).

    Attributes:
        multiple: what h and w must be divisible by.
        receptive_radius: reach in LR pixels, None where it is unbounded.
    """

    multiple: int

    @property
    def receptive_radius(self) -> int | None: ...

    def __call__(self, x: Tensor, /) -> Tensor: ...


class Decoder(Protocol):
    """The two stages behind the encoder; see `LIIFDecoder` for the shapes.

    Attributes:
        depth: hidden layers of the render MLP.
        skip: the render MLP's output is added to bilinear interpolation.
        receptive_radius: reach in LR pixels, None where it is unbounded.
    """

    depth: int
    skip: bool
    render_mlp: RenderMLP

    @property
    def receptive_radius(self) -> int | None: ...

    def latent(self, features: Tensor, cell: Tensor) -> Tensor: ...

    def render_input(self, code: Tensor, relative: Tensor, cell: Tensor) -> Tensor: ...


class Renderer(Protocol):
    """A Latent Modulated Function as its helpers see it; see `LMF` for the members."""

    scale: float
    encoder: Encoder
    max_queries: int

    def encode(self, lr: Tensor, cell: Tensor) -> Latent: ...

    def render(self, latent: Latent, rows: Axis, columns: Axis, cell: Tensor) -> Tensor: ...

    def render_raster(self, latent: Latent, rows: Axis, columns: Axis, cell: Tensor) -> Tensor: ...
