"""Latent Modulated Functions: SR of any size, heavy work once per LR pixel, a tiny MLP per HR pixel.

He & Jin, "Latent Modulated Function for Computational Optimal Continuous Image Representation", CVPR 2024,
arXiv:2404.16451. An encoder makes features; the decoder's latent MLP turns them into modulations and a code for every
LR pixel; its render MLP, modulated by them, colours the queries. The four LR pixels around a query each give a colour;
the nearer one counts more (the local ensemble of LIIF).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.capabilities import AnyScale, Capabilities, CoarseRendering, Table, Tables, checked_scale
from models.lmf.cmsr import TARGETS, TOLERANCE, build_table, render_multiscale, rendered_share
from models.lmf.latent import Decoder, Encoder, Latent
from models.lmf.mlp import WIDTH
from models.lmf.queries import (
    LARGEST_SCALE,
    TRAINED_SCALE,
    Axis,
    grid,
    place,
    place_all,
    relative_cell,
    target_size,
)
from models.lmf.tiled import super_resolve_tiled
from models.sr_network import SRNetwork

SCALES = AnyScale(1, LARGEST_SCALE)
HALO = 32  # LR pixels that tiles take by default where the reach is unbounded


def mirror_pad(image: Tensor, multiple: int) -> Tensor:
    """Extend (B, C, h, w) below and on the right to multiples, mirrored at the border, edge pixel included.

    Aligned sides stay as they are (the authors' evaluation adds a whole window to them): training patches and images
    are treated alike.
    """
    for axis in (2, 3):
        length = image.shape[axis]
        padded = -(-length // multiple) * multiple
        if padded > length:
            index = torch.arange(padded, device=image.device) % (2 * length)
            image = image.index_select(axis, index.minimum(2 * length - 1 - index))
    return image


class LMF(SRNetwork):
    """Maps LR images (B, 3, h, w) in [0, 1] to SR images of any size from x1 to x30; the output is not clamped.

    `scale` is the factor where no size is given, `tail` the render MLP.

    Args:
        encoder, decoder: see models/lmf/latent.py.
        scale: 1 to 30, may be fractional.

    Attributes:
        cmsr: tables of Controllable Multi-Scale Rendering (see models.lmf.cmsr), or None; given by `with_tables`.
        max_queries: most queries rendered at once, bounds the memory.
    """

    scale: float  # type: ignore[assignment]  # no other network has a fractional one

    def __init__(self, encoder: Encoder, decoder: Decoder, scale: float):
        super().__init__()
        self.scale = checked_scale(self, scale, SCALES)
        self.encoder = encoder
        self.decoder = decoder
        near, far = encoder.receptive_radius, decoder.receptive_radius
        radius = None if near is None or far is None else near + far
        self.capabilities = Capabilities(
            receptive_radius=radius,
            local_receptive_radius=HALO if radius is None else None,
            scales=SCALES,
            tiling="own",
            size_multiple=encoder.multiple,
            features=True,
            samples=True,
            coarse=CoarseRendering(TRAINED_SCALE, TARGETS, TOLERANCE),
        )
        self.cmsr: Tables | None = None
        self.max_queries = 2**15

    @property
    def tail(self) -> nn.Module:
        return self.decoder.render_mlp

    def forward(self, lr: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """SR images (B, 3, H, W).

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            size: (H, W); None is (round(scale * h), round(scale * w)).

        Raises:
            ValueError: a size beyond x1 to x30.
        """
        lr_size = (lr.shape[-2], lr.shape[-1])
        height, width = target_size(lr_size, self.scale, size)
        tables = self.tables_for(lr_size, (height, width))
        if tables is not None:
            return render_multiscale(self, lr, (height, width), tables).sr
        cell = relative_cell((height, width), lr_size, lr)
        rows, columns = place_all(height, lr_size[0], lr), place_all(width, lr_size[1], lr)
        return self.render_raster(self.encode(lr, cell), rows, columns, cell)

    def sample(self, lr: Tensor, rows: Tensor, columns: Tensor, sizes: Tensor) -> Tensor:
        """Colours (B, Q, 3) of single pixels of the SR images, each image of its own size; for training.

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            rows: int64 (B, Q), rows in the SR images.
            columns: int64 (B, Q).
            sizes: int64 (B, 2), height and width of the SR images.
        """
        height, width = lr.shape[-2:]
        cell = relative_cell(sizes, (height, width), lr)
        down = place(rows, sizes[:, :1], height, lr.dtype)
        across = place(columns, sizes[:, 1:], width, lr.dtype)
        return self.render(self.encode(lr, cell), down, across, cell)

    def tiled(self, lr: Tensor, size: tuple[int, int] | None, tile: int, halo: int) -> Tensor:
        """SR images (B, 3, H, W) in tiles; see `super_resolve_tiled`."""
        return super_resolve_tiled(self, lr, size, tile, halo)

    # ------------------------------------------------------------------------------------- multi-scale rendering (CMSR)

    def with_tables(self, tables: Tables) -> LMF:
        """The network, its tensors shared, that renders by these tables beyond x4 in evaluation mode."""
        network = copy.copy(self)
        network.cmsr = tables
        return network

    def tables_for(self, lr_size: tuple[int, int], size: tuple[int, int]) -> Tables | None:
        """The tables by which this size is rendered; None renders every pixel."""
        scale = min(size[0] / lr_size[0], size[1] / lr_size[1])
        return self.cmsr if not self.training and scale > TRAINED_SCALE else None

    def rendered_share(self, lr: Tensor, size: tuple[int, int]) -> float:
        """Pixels rendered for this size, at all levels, divided by those of the SR images; 1 without tables."""
        tables = self.tables_for((lr.shape[-2], lr.shape[-1]), size)
        return 1.0 if tables is None else rendered_share(self, lr, size, tables)

    def build_table(self, images: Iterable[Tensor], scale: float, tolerance: float = TOLERANCE) -> Table:
        """Table for one target scale, measured on LR images; see models.lmf.cmsr."""
        return build_table(self, images, scale, tolerance=tolerance)

    # --------------------------------------------------------------------------------------------------- its two stages

    def encode(self, lr: Tensor, cell: Tensor) -> Latent:
        """The latent stage. `cell` (B or 1, 2): see `relative_cell`. Sides are padded to the encoder's multiple."""
        x = mirror_pad(2 * lr - 1, self.encoder.multiple)
        batch, _, height, width = x.shape
        values = WIDTH * self.decoder.depth
        latent = self.decoder.latent(self.encoder(x), cell).flatten(0, 1)  # (B * N, 2 * values + E)
        factors, shifts = 1 + latent[:, :values], latent[:, values : 2 * values]
        pair = [part.unflatten(1, (-1, WIDTH)) for part in (factors, shifts)]
        modulations = torch.cat(pair, dim=-1).transpose(0, 1).contiguous()
        colours = x.permute(0, 2, 3, 1).flatten(0, 2)
        return Latent(colours, latent[:, 2 * values :], modulations, (batch, height, width))

    def features(self, lr: Tensor) -> Tensor:
        """What the encoder makes of LR images: (B, C, h', w'), sides padded to the encoder's multiple."""
        return self.encoder(mirror_pad(2 * lr - 1, self.encoder.multiple))

    def render_raster(self, latent: Latent, rows: Axis, columns: Axis, cell: Tensor) -> Tensor:
        """Images (B, 3, R, C) at all crossings of rows (R) and columns (C), in bands of at most `max_queries`."""
        # Shapes alone take no memory, and one band is counted sooner.
        band = len(rows) if latent.codes.is_meta else max(1, self.max_queries // len(columns))
        edges = [*range(0, len(rows), band), len(rows)]
        bands = []
        for first, last in pairwise(edges):
            colours = self.render(latent, *grid(rows[first:last], columns), cell)
            bands.append(colours.unflatten(1, (last - first, len(columns))))
        return torch.cat(bands, dim=1).permute(0, 3, 1, 2).contiguous()

    def render(self, latent: Latent, rows: Axis, columns: Axis, cell: Tensor) -> Tensor:
        """Colours (B, Q, 3) in [0, 1] at queries whose row and column are Axis (B or 1, Q)."""
        batch, height, width = latent.shape
        image = height * width * torch.arange(batch, device=latent.codes.device)[:, None]
        down = [rows.neighbour(side, height) for side in (0, 1)]
        across = [columns.neighbour(side, width) for side in (0, 1)]
        colour = latent.codes.new_zeros(())
        for i, (row, y) in enumerate(down):
            for j, (column, x) in enumerate(across):
                index = image + row * width + column  # (B, Q)
                code = F.embedding(index, latent.codes)
                features = self.decoder.render_input(code, torch.stack((y, x), dim=-1), cell)
                prediction = self.decoder.render_mlp(features, latent.modulations, index)
                if self.decoder.skip:
                    prediction = prediction + F.embedding(index, latent.colours)
                # LIIF's areas of the opposite rectangles are the weights of bilinear interpolation.
                weight = (rows.offset if i else 1 - rows.offset) * (columns.offset if j else 1 - columns.offset)
                colour = colour + prediction * weight[..., None]
        return (colour + 1) / 2
