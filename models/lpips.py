"""LPIPS, the learned perceptual distance of images (Zhang et al. 2018, arXiv:1801.03924), version 0.1."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from utils.errors import UserError

# Colour statistics of ImageNet for images in [-1, 1].
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
# Layers as in torchvision's `features`: (output channels, kernel, stride, padding), "pool", or "tap" after a ReLU.
ALEXNET = ((64, 11, 4, 2), "tap", "pool", (192, 5, 1, 2), "tap", "pool",
           (384, 3, 1, 1), "tap", (256, 3, 1, 1), "tap", (256, 3, 1, 1), "tap")  # fmt: skip
VGG16 = ((64, 3, 1, 1), (64, 3, 1, 1), "tap", "pool", (128, 3, 1, 1), (128, 3, 1, 1), "tap", "pool",
         *((256, 3, 1, 1),) * 3, "tap", "pool", *((512, 3, 1, 1),) * 3, "tap", "pool",
         *((512, 3, 1, 1),) * 3, "tap")  # fmt: skip
LEAST_SIDE = {"alexnet": 31, "vgg16": 16}  # below, a pooling would have nothing left
BACKBONES = {"alexnet": (ALEXNET, nn.MaxPool2d(3, 2)), "vgg16": (VGG16, nn.MaxPool2d(2, 2))}


class LPIPS(nn.Module):
    """Distance in the unit-normalised features of a classification network, weighted by learned channel weights.

    Args:
        backbone: "alexnet" or "vgg16".
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: str):
        super().__init__()
        layers, pool = BACKBONES[backbone]
        modules: list[nn.Module] = []
        channels, taps = 3, []
        for layer in layers:
            if layer == "tap":
                taps.append((len(modules) - 1, channels))
            elif layer == "pool":
                modules.append(pool)
            elif isinstance(layer, tuple):
                modules += [nn.Conv2d(channels, *layer), nn.ReLU()]
                channels = layer[0]
        self.backbone, self.taps = backbone, [place for place, _ in taps]
        self.features = nn.Sequential(*modules)
        self.lin = nn.ParameterList([nn.Parameter(torch.ones(1, width, 1, 1)) for _, width in taps])
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Distance (B,) of images (B, 3, H, W) in [0, 1]; 0 for equal ones.

        Raises:
            ValueError: images of less than 31 (AlexNet) or 16 (VGG16) pixels a side.
        """
        least = LEAST_SIDE[self.backbone]
        if min(image.shape[-2:]) < least:
            raise UserError(f"LPIPS with {self.backbone} needs images of at least {least} pixels a side, found "
                             f"{image.shape[-2]}x{image.shape[-1]}; take larger patches or images")  # fmt: skip
        distance = image.new_zeros(len(image), dtype=torch.float32)
        for weight, one, other in zip(self.lin, self.taken(image), self.taken(reference), strict=True):
            difference = (unit(one.float()) - unit(other.float())).square()  # (B, C, h, w)
            distance = distance + (difference * weight).sum(1).mean((1, 2))
        return distance

    def taken(self, image: Tensor) -> list[Tensor]:
        """Features after the ReLUs that LPIPS looks at."""
        x, found = (2 * image - 1 - self.shift) / self.scale, []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.taps:
                found.append(x)
        return found


def unit(features: Tensor) -> Tensor:
    """Features (B, C, h, w) of length one along the channels."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def lpips_from_state(state: dict[str, Tensor]) -> LPIPS:
    """LPIPS with these weights: the backbone named as in torchvision (`features.0.weight`) or in the `lpips` package
    (`net.slice1.0.weight`), the channel weights as there (`lin0.model.1.weight`).

    Raises:
        ValueError: backbone or channel weights are missing, or belong to neither AlexNet nor VGG16.
    """
    found = {}
    for name, value in state.items():
        if match := re.search(r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)$", name):
            found[f"features.{match[1]}.{match[2]}"] = value
        elif match := re.search(r"lins?\.?(\d)\.model\.\d\.weight$", name):
            found[f"lin.{match[1]}"] = value
    first = found.get("features.0.weight")
    sides: dict[tuple[int, ...], str] = {(64, 3, 11, 11): "alexnet", (64, 3, 3, 3): "vgg16"}
    if first is None or tuple(first.shape) not in sides:
        raise UserError("no AlexNet or VGG16 backbone (features.0.weight); add torchvision's weight file of one")
    network = LPIPS(sides[tuple(first.shape)])
    own = network.state_dict()
    missing = [name for name in own if name not in found]
    if missing:
        what = "the channel weights (lin0.model.1.weight, ...)" if missing[0].startswith("lin") else missing[0]
        raise UserError(f"{network.backbone}: {what} are missing; add the file of LPIPS v0.1 for this backbone")
    wrong = [name for name in own if found[name].shape != own[name].shape]
    if wrong:
        raise UserError(f"{network.backbone}: {wrong[0]} is {tuple(found[wrong[0]].shape)}, "
                         f"expected {tuple(own[wrong[0]].shape)}; the files belong to different backbones")  # fmt: skip
    network.load_state_dict({name: found[name].float() for name in own})
    return network
