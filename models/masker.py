"""The Masker decides, patch by patch, whether an LR image needs SR_Quality."""

from __future__ import annotations

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from utils.device import sent
from utils.errors import UserError

# Adam moves a parameter by about its learning rate a step; with this gain the offset crosses several units of logit in
# a few hundred steps, as the falling target share demands.
OFFSET_GAIN = 10.0


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches of an LR image; the last ones may be partial."""
    return -(-height // patch), -(-width // patch)


@torch.fx.wrap  # one call in a traced masker, which then serves images of any size
def pool_to_grid(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Average features (B, C, h, w) over the cells of a grid -> (B, C, gh, gw)."""
    height, width = x.shape[-2:]
    if height % grid[0] == 0 and width % grid[1] == 0:  # the adaptive one has no deterministic backward on CUDA
        return F.avg_pool2d(x, (height // grid[0], width // grid[1]))
    return F.adaptive_avg_pool2d(x, grid)


@torch.fx.wrap
def repeat_border(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Repeat the last row and column of images (B, C, h, w) up to height and width; nothing is copied where none is
    missing."""
    below, right = height - x.shape[-2], width - x.shape[-1]
    if not torch.compiler.is_compiling() and below == right == 0:  # an exported graph may not depend on the size
        return x
    return F.pad(x, (0, right, 0, below), mode="replicate")


def feature_maps(stem: nn.Module) -> int:
    """Channels of what a stem makes: those of its last convolution."""
    return [layer.out_channels for layer in stem.modules() if isinstance(layer, nn.Conv2d)][-1]


def dividing_score(scores: torch.Tensor, share: float) -> torch.Tensor:
    """The score above which this share of all scores lies, or the share next to it: equal scores are not parted.

    It lies halfway between two of them, so that rounding moves none to the other side (flat patches all score alike).

    Args:
        scores: any shape.
        share: in (0, 1).
    """
    ordered = scores.float().flatten().sort(descending=True).values
    above = (ordered[:-1] > ordered[1:]).nonzero()[:, 0] + 1  # how many scores may lie above
    if not len(above):
        return ordered[0] + (1 if share < 0.5 else -1)
    number = above[(above - share * len(ordered)).abs().argmin()]
    return (ordered[number - 1] + ordered[number]) / 2


class Masker(nn.Module):
    """Strided convolutions to a quarter of LR resolution, pooling to the patch grid, one look at the neighbours.

    The last features are centred (BatchNorm without scale and shift). A loss on the kept share pushes all patches
    alike; on centred features that push cancels out and moves nothing but `offset`. Otherwise it would lower the logits
    most where features are strong, which is on the objects. In eval mode every image is treated on its own.

    Args:
        patch: side of a patch in LR pixels, 4 ... 64.
        channels: maps of the first convolution, later ones have twice as many.
        bias: initial logit in favour of SR_Quality.
        stem: layers (B, 3, h, w) -> (B, C, h, w) whose features the masker sees instead of the image; they belong to
            another network, which learns them too.

    Raises:
        ValueError: patch outside 4 ... 64.
    """

    def __init__(self, patch: int, channels: int = 16, bias: float = 1.0, stem: nn.Module | None = None):
        super().__init__()
        if not 4 <= patch <= 64:
            raise UserError(f"masker: patch is {patch}; use 4 to 64 LR pixels")
        self.patch = patch
        self.channels = channels
        self.bias = bias
        self.stem = stem
        self.features = nn.Sequential(
            nn.Conv2d(3 if stem is None else feature_maps(stem), channels, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.context = nn.Sequential(nn.Conv2d(2 * channels, 2 * channels, 3, padding=1), nn.ReLU(inplace=True))
        self.norm = nn.BatchNorm2d(2 * channels, affine=False)
        self.logits = nn.Conv2d(2 * channels, 2, 1, bias=False)
        self.offset = nn.Parameter(torch.tensor(bias / OFFSET_GAIN))
        self.initialize_weights()

    def initialize_weights(self) -> None:
        for layer in (*self.features, *self.context):
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.logits.weight, std=0.01)  # so that the offset decides at the start

    @property
    def shares_stem(self) -> bool:
        """Whether it sees features of another network instead of the image."""
        return self.stem is not None

    def own_parameters(self) -> list[nn.Parameter]:
        """Its parameters without those of the stem."""
        shared = set() if self.stem is None else {id(p) for p in self.stem.parameters()}
        return [p for p in self.parameters() if id(p) not in shared]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the mask of an LR image of height x width pixels."""
        return patch_grid(height, width, self.patch)

    @torch.no_grad()
    def calibrate(self, scores: torch.Tensor, share: float) -> None:
        """Move the offset so that the decision keeps this share of the patches with these scores, see `dividing_score`.

        Args:
            scores: logit differences (quality - fast) of patches like those to come, any shape.
            share: kept share in (0, 1).
        """
        self.offset.sub_(dividing_score(scores, share) / OFFSET_GAIN)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """LR images (B, 3, h, w) in [0, 1] -> logits (B, 2, ceil(h / patch), ceil(w / patch)), channel 1 = quality."""
        return self.decide(self.norm(self._patch_features(lr)))

    def on_image(self, lr: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """`forward` for images with padding, which has no part in the statistics that training centres features with.

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            image: bool (B, gh, gw) on the CPU, true where a patch holds image, see models/content.py.
        """
        x = self._patch_features(lr)
        shown = image.flatten().nonzero()[:, 0]
        if not self.norm.training or len(shown) < 2:  # one value has no variance; then as if all were image
            return self.decide(self.norm(x))
        shown = sent(shown, x.device)
        flat = x.permute(0, 2, 3, 1).flatten(0, 2)  # (B * gh * gw, 2C)
        centred = self.norm(flat.index_select(0, shown)[..., None, None])[..., 0, 0]
        flat = torch.zeros_like(flat, dtype=centred.dtype).index_copy(0, shown, centred)
        return self.decide(flat.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2))

    def _patch_features(self, lr: torch.Tensor) -> torch.Tensor:
        """(B, 3, h, w) -> (B, 2C, gh, gw), not yet centred."""
        height, width = lr.shape[-2:]
        rows, columns = self.grid(height, width)
        # An image has about zero mean and unit variance then, as the initialisation assumes.
        x = (lr - 0.5) / 0.25 if self.stem is None else self.stem(lr)
        x = repeat_border(x, rows * self.patch, columns * self.patch)
        x = self.features(x)  # (B, 2C, gh * patch / 4, gw * patch / 4)
        return self.context(pool_to_grid(x, (rows, columns)))  # (B, 2C, gh, gw)

    def decide(self, x: torch.Tensor) -> torch.Tensor:
        """Centred features (B, 2C, gh, gw) -> logits (B, 2, gh, gw)."""
        drop, keep = self.logits(x).split(1, dim=1)  # (B, 1, gh, gw) each
        return torch.cat([drop, keep + OFFSET_GAIN * self.offset], dim=1)
