"""What is exported: images in, tensors out, as one traceable module each.

A traced graph serves every size and batch if no number in it comes from the size of the example: sizes are taken from
shapes and used in tensor arithmetic, no branch asks for one. `deployment/export/parity.py` tries that at other sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.conditional_sr import ConditionalSR
from models.front_end import FrontEnd
from models.mask_policy import MaskPolicy
from models.masker import Masker
from models.sr_network import SRNetwork
from models.system import ConditionalSRDetector
from utils.convert import GREY
from utils.errors import UserError

if TYPE_CHECKING:
    from models.detector_yolo import YoloDetector


def check_exportable(network: nn.Module, role: str) -> None:
    """Raises UserError where a network is no fixed sequence of layers; the message says which and why."""
    can = network.capabilities
    name, why = network.spec["name"], None
    if can.stochastic:
        why = "it draws noise that depends on the place in the image"
    elif can.steps > 1:
        why = f"one image takes {can.steps} passes through it"
    elif can.takes_size:
        why = "it colours single points of an image of any size, and a graph would hold for one size only"
    elif can.tiling == "own" or can.blend:
        why = "it runs in windows that fade into each other"
    elif can.quantised:
        why = "its integers are for the native kernel; give the network that it was made of, with --int8"
    if why:
        raise UserError(f"export: {role} {name} cannot be exported: {why}; take a network of one pass, such as edsr")


class SRGraph(nn.Module):
    """SR images (B, 3, s * h, s * w) in [0, 1] of LR images (B, 3, h, w) in [0, 1]."""

    outputs = ("output0",)
    image_output, multiple = True, 1

    def __init__(self, network: SRNetwork):
        super().__init__()
        check_exportable(network, "the SR network")
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images).clamp(0, 1),)


class DetectorGraph(nn.Module):
    """Decoded predictions (B, 4 + classes, anchors) as `yolo export` gives them: cx, cy, w, h in pixels, then scores.

    Args:
        detector: in evaluation mode; images (B, 3, H, W) in [0, 1], H and W multiples of its stride.
    """

    outputs = ("output0",)
    image_output = False
    multiple: int

    def __init__(self, detector: YoloDetector):
        super().__init__()
        self.detector, self.multiple = detector, detector.stride

    def forward(self, images: Tensor) -> tuple[Tensor]:
        raw, head = self.detector.raw(images, one2one=False), self.detector.head
        points, strides = [], []
        for level, stride in zip(raw["feats"], head.stride.tolist(), strict=True):
            rows, columns = (torch.arange(side).to(images) + 0.5 for side in level.shape[-2:])
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            points.append(torch.stack((x, y)).flatten(1))  # (2, n), in cells
            strides.append(torch.full_like(points[-1][:1], stride))
        boxes = head.decode_bboxes(head.dfl(raw["boxes"]), torch.cat(points, 1)[None]) * torch.cat(strides, 1)
        return (torch.cat((boxes, raw["scores"].sigmoid()), 1),)


class CallGraph(nn.Module):
    """The whole call: LR images (B, 3, h, w) in [0, 1] of any size -> boxes in their own pixels.

    Images are padded inside as `Predictor` does it, so every side is taken. Three tensors come out:
    `output0` (B, 4 + classes, anchors), cx, cy, w, h in pixels of the input image and scores, as of `yolo export`;
    `sr` (B, 3, s * h, s * w) in [0, 1]; with a masker `mask` (B, gh, gw), 1 where SR_Quality ran.

    Args:
        system: in evaluation mode.
        policy: budget=R, all_fast or all_quality; looked at where there is a masker.

    Raises:
        UserError: a network or a policy that makes no fixed graph.
    """

    image_output, multiple = False, 1

    def __init__(self, system: ConditionalSRDetector, policy: MaskPolicy):
        super().__init__()
        if system.upscale != 1:
            raise UserError(
                f"export: the detector's input is enlarged by {system.upscale:g} (upscale), which no graph of the "
                "whole call holds; export the SR network and the detector apart"
            )
        self.front = front_graph(system.front, policy)
        self.detect = DetectorGraph(system.detector)
        self.scale = system.front.scale
        self.unit = padding_unit(system)
        self.outputs = ("output0", "sr", "mask") if isinstance(self.front, BudgetGraph) else ("output0", "sr")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[-2:]
        padding = (0, -width % self.unit, 0, -height % self.unit)
        sr, *mask = self.front(F.pad(images, padding, value=GREY / 255), height, width)
        (found,) = self.detect(sr)
        found = torch.cat((found[:, :4] / self.scale, found[:, 4:]), 1)
        return (found, sr[..., : height * self.scale, : width * self.scale], *mask)


def padding_unit(system: ConditionalSRDetector) -> int:
    """LR pixels of which a side is a multiple once it is padded; see `Predictor`."""
    stride, scale = system.detector.stride, system.front.scale
    return next(unit for unit in range(1, stride + 1) if unit * scale % stride == 0)


def front_graph(front: FrontEnd, policy: MaskPolicy) -> nn.Module:
    """What makes the detector's images, called with padded images and the height and width of their content.

    Raises:
        UserError: a network or a policy that makes no fixed graph.
    """
    if front.patch is None:
        networks = list(front.networks.items())
    elif policy.kind in ("all_fast", "all_quality") or (policy.kind == "budget" and policy.number in (0, 1)):
        fast = policy.kind == "all_fast" or (policy.kind == "budget" and policy.number == 0)
        role = "sr_fast" if fast else "sr_quality"
        networks = [(role, front.networks[role])]
    elif policy.kind == "budget":
        return BudgetGraph(front, policy.number)
    else:
        raise UserError(
            f"export: policy {policy} has no fixed number of patches, so no fixed graph; take budget=R, all_fast or "
            "all_quality"
        )
    for role, network in networks:
        check_exportable(network, role)
    return WholeGraph(networks[0][1] if networks else nn.Identity())


class WholeGraph(nn.Module):
    """One network on the whole image."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor, height: int, width: int) -> tuple[Tensor]:
        return (self.network(lr).clamp(0, 1),)


class BudgetGraph(nn.Module):
    """Conditional SR at a fixed budget: masker, the best patches, SR_Quality on them, put into SR_Fast's image.

    Which patches are image and how many are chosen is as in `MaskPolicy.select`. Every chosen patch is computed in a
    window of its own; where these would cost more than the image, the whole image is computed and the patches are taken
    from it, as `plan_tiles` decides, but once and for all sizes.

    Args:
        front: with a masker.
        share: budget, in (0, 1).

    Raises:
        UserError: a network that cannot be exported.
    """

    def __init__(self, front: ConditionalSR, share: float):
        super().__init__()
        for role in ("sr_fast", "sr_quality"):
            check_exportable(front.networks[role], role)
        self.masker, self.fast, self.quality = front.masker, front.sr_fast, front.sr_quality
        self.share, self.patch, self.scale = share, front.patch, front.scale
        halo = front.execution.halo
        self.halo = self.quality.capabilities.halo if halo is None else halo
        self.dense = share * (self.patch + 2 * self.halo) ** 2 >= self.patch**2

    def forward(self, lr: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """SR images (B, 3, s * h, s * w) and mask (B, gh, gw); `height` and `width`: the part of lr that is image."""
        logits = masker_logits(self.masker, lr)
        chosen, some = self.chosen(logits[:, 1] - logits[:, 0], height, width)
        image, row, column = chosen.nonzero().unbind(1)
        own = self.cells_of_image(lr, image, row, column) if self.dense else self.cells(lr, image, row, column)
        canvas = to_cells(self.fast(lr), self.patch * self.scale)  # (B, gh, gw, cell, cell, 3)
        place = (image, row, column)
        sr = from_cells(canvas.index_put(place, torch.where(some, own, canvas[place])))
        return sr[..., : lr.shape[-2] * self.scale, : lr.shape[-1] * self.scale].clamp(0, 1), (chosen & some).to(lr)

    def chosen(self, score: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The best patches, as `top_share` marks them, by their scores (B, gh, gw).

        Returns:
            Bool (B, gh, gw), with one patch where the budget allows none, since not every runtime takes an empty batch;
            and whether it allows any, 0-d.
        """
        rows, columns = ((side + self.patch - 1) // self.patch for side in (height, width))
        flat = score[:, :rows, :columns].flatten(1)
        # In float64, halves to even: what Python's round(share * patches) gives.
        count = torch.round(torch.ones_like(flat[0], dtype=torch.float64).sum() * self.share).long()
        most = count.clamp(min=1)
        last = flat.sort(dim=1, descending=True)[0][:, most - 1 : most]  # the lowest score that is taken
        # Among equal ones the first in reading order; runtimes sort them in any order.
        equal = flat == last
        taken = (flat > last) | (equal & (equal.long().cumsum(1) <= most - (flat > last).long().sum(1, keepdim=True)))
        image = taken.reshape(-1, rows, columns)
        return F.pad(image.to(score), (0, score.shape[2] - columns, 0, score.shape[1] - rows)) > 0, count > 0

    def cells(self, lr: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """SR_Quality's HR cells (n, cell, cell, 3) of patches, each in a window that never leaves the image."""
        side, cell = self.patch + 2 * self.halo, self.patch * self.scale
        high, wide = lr[..., :side, :side].shape[-2:]  # of the window: min(image, side)
        top = window_start(row, self.patch, self.halo, lr.shape[-2] - high)
        left = window_start(column, self.patch, self.halo, lr.shape[-1] - wide)
        windows = pixels(lr, image, top[:, None] + torch.arange(high), left[:, None] + torch.arange(wide))
        sr = self.quality(windows.permute(0, 3, 1, 2))  # (n, 3, s * high, s * wide)
        down, right = (row * self.patch - top) * self.scale, (column * self.patch - left) * self.scale
        # A partial patch ends with the image: beyond, anything may stand.
        rows = torch.minimum(down[:, None] + torch.arange(cell), torch.as_tensor(sr.shape[-2] - 1))
        columns = torch.minimum(right[:, None] + torch.arange(cell), torch.as_tensor(sr.shape[-1] - 1))
        return pixels(sr, torch.arange(sr.shape[0]), rows, columns)

    def cells_of_image(self, lr: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """The same cells, out of SR_Quality's image."""
        return to_cells(self.quality(lr), self.patch * self.scale)[image, row, column]


def window_start(index: Tensor, patch: int, halo: int, last: Tensor) -> Tensor:
    """First LR pixel of the windows around patches, at most `last`."""
    return torch.minimum((index * patch - halo).clamp(min=0), torch.as_tensor(last))


def pixels(images: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rectangles (n, h, w, C) of images (B, C, H, W): rectangle i has rows (n, h) and columns (n, w) of image[i]."""
    return images.permute(0, 2, 3, 1)[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def to_cells(images: Tensor, cell: int) -> Tensor:
    """HR images (B, C, H, W) -> (B, gh, gw, cell, cell, C), the last cells filled up."""
    batch, channels, height, width = images.shape
    images = F.pad(images, (0, -width % cell, 0, -height % cell))
    cells = images.reshape(batch, channels, (height + cell - 1) // cell, cell, (width + cell - 1) // cell, cell)
    return cells.permute(0, 2, 4, 3, 5, 1)


def from_cells(cells: Tensor) -> Tensor:
    """The inverse of `to_cells`, filled up as it is."""
    batch, rows, columns, cell, _, channels = cells.shape
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, rows * cell, columns * cell)


def masker_logits(masker: Masker, lr: Tensor) -> Tensor:
    """What `masker(lr)` is, (B, 2, gh, gw), without a branch or a pooling window that depends on the size."""
    height, width = lr.shape[-2:]
    x = (lr - 0.5) / 0.25 if masker.stem is None else masker.stem(lr)
    x = F.pad(x, (0, -width % masker.patch, 0, -height % masker.patch), mode="replicate")
    rows, columns = ((side + masker.patch - 1) // masker.patch for side in (height, width))
    x = masker.features(x)
    x = averages(x.shape[-2], rows).to(x) @ x @ averages(x.shape[-1], columns).to(x).T
    return masker.decide(masker.norm(masker.context(x)))


def averages(length: int, cells: int) -> Tensor:
    """Matrix (cells, length) that averages a line within cells, as adaptive pooling divides it."""
    cell, place = torch.arange(cells)[:, None], torch.arange(length)
    start, end = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
    return ((place >= start) & (place < end)).float() / (end - start)
