"""SR networks alone on images, folders and videos: no masker, no detector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.sources import Frame, Skipped
from deployment.network_memory import activation_bytes, largest_tile
from loading.checkpoints import checkpoint_kind
from loading.cmsr_files import use_tables
from loading.shipped_weights import SHIPPED, strongest_shipped
from models.arbitrary_scale import seeded
from models.feature_maps import feature_maps
from models.sr_network import SRNetwork
from models.tiling.whole import LEAST_SIDE
from prediction.image_input import MAX_PIXELS, one_image, open_source, without_skipped
from prediction.predictor import memory_message
from prediction.sr_image import in_one
from prediction.sr_inference import SRInference, hr_size, load_sr_for
from prediction.stage_times import StageTimes
from utils.checkpoint import CheckpointError
from utils.convert import to_image, to_tensor
from utils.device import choose_device, is_out_of_memory
from utils.errors import UserError

SMALL_TILE = 64  # LR pixels; smaller ones are not worth advising
SR_BYTES = 64.0  # per pixel of an SR image: its three float32, and their copies on the way to 8 bit (CPU: measured)


@dataclass(frozen=True)
class Upscaled:
    """An SR image, as a whole or made strip by strip while it is saved.

    Args:
        shape: height and width.
        strips: from top to bottom, uint8 (rows, width, 3) RGB each; they can be taken once.
    """

    shape: tuple[int, int]
    strips: Iterable[np.ndarray]

    def whole(self) -> np.ndarray:
        """uint8 (height, width, 3)."""
        return in_one(iter(self.strips), self.shape)


class SuperResolver:
    """An SR network of a weight file on its device, and how images run through it.

    Args:
        weights: see `load_sr_for`; `shipped` takes the strongest of the project's own weights for `scale`.
        scale: factor; None takes the network's own, and x4 of the shipped ones.
        device: auto, cpu or cuda.
        half: compute in fp16 on CUDA, in bf16 elsewhere, where PyTorch's autocast does.
        tile: side in LR pixels of the tiles that an image is computed in; 0: see `memory_mb`.
        tile_halo: LR pixels of neighbours around a tile; None: receptive field (exact), 32 where unknown.
        self_ensemble: average over the eight symmetries of the image.
        tables: CMSR tables by which an lm_* network renders beyond x4; see `use_tables`.
        seed: of the noise that diffusion networks draw; the same seed gives the same image.
        memory_mb: about what one image may take (10^6 bytes) where no `tile` is given; larger ones go in tiles, if
            these are exact (a whole scale and a known receptive field) or fade into each other (diffusion).

    Attributes:
        network: SRNetwork in evaluation mode.
        scale: factor of `upscale`.

    Raises:
        UserError: weights, tables or a device that cannot be used.
    """

    def __init__(
        self,
        weights: str | Path = SHIPPED,
        scale: float | None = None,
        device: str = "auto",
        half: bool = False,
        tile: int = 0,
        tile_halo: int | None = None,
        self_ensemble: bool = False,
        tables: str | Path | None = None,
        seed: int = 0,
        memory_mb: int = 1024,
    ):
        place = choose_device(device)
        self.weights = str(strongest_shipped(scale)) if weights == SHIPPED else str(weights)
        self.network: SRNetwork = seeded(load_network_alone(self.weights, scale).to(place).eval(), seed)
        self.scale: float = self.network.scale if scale is None else scale
        if tables is not None:
            self.network = use_tables(self.network, tables)
        can, self._at_once = self.network.capabilities, math.inf
        if tile == 0 and can.blend:
            tile = largest_tile(self.network, memory_mb)
        elif tile == 0 and can.tiling == "exact" and not can.takes_size:
            each = activation_bytes(self.network, torch.float32) + SR_BYTES * self.network.scale**2
            self._at_once = memory_mb * 1e6 / each  # LR pixels
        precision = "fp32" if not half else "fp16" if place.type == "cuda" else "bf16"
        self.inference = SRInference(place, precision, tile, tile_halo, self_ensemble)

    def upscale(
        self,
        source,
        scale: float | None = None,
        channels: str | None = None,
        stream: bool = False,
        on_bad_image: str = "error",
        max_pixels: int = MAX_PIXELS,
    ) -> list[np.ndarray] | Iterator[np.ndarray]:
        """Super-resolve images of any kind.

        Args:
            source, channels, max_pixels: see `open_source`.
            scale: factor; None takes `self.scale`. Fixed-scale networks have one only.
            stream: give an iterator that makes one image at a time instead of a list.
            on_bad_image: files that cannot be read raise an error, or are left out with a warning (skip).

        Returns:
            Per image uint8 (round(s * H), round(s * W), 3) RGB.

        Raises:
            UserError: a source that cannot be used, or see `image`.
        """
        frames = without_skipped(open_source(source, channels, max_pixels), on_bad_image)
        images = (self.image(frame.image, scale) for frame in frames)
        return images if stream else list(images)

    def features(self, source, channels: str | None = None, max_pixels: int = MAX_PIXELS) -> Tensor:
        """What the network knows of one image before it enlarges it.

        Args:
            source, channels, max_pixels: see `open_source`; one image.

        Returns:
            float32 (C, H, W) on the CPU, at the image's own size and in the network's own units; see `feature_maps`.

        Raises:
            UserError: a source that cannot be used or holds several images, or a network without such features.
        """
        return image_features(self.network, one_image(source, channels, max_pixels), self.inference.device)

    def image(self, image: np.ndarray, scale: float | None = None) -> np.ndarray:
        """Super-resolve one image, uint8 (H, W, 3) RGB -> uint8 (round(s * H), round(s * W), 3) RGB.

        Raises:
            UserError: another scale than a fixed-scale network has, no tiles of this size, or NaN in the result.
        """
        return self._upscaled(image, scale).whole()

    def _upscaled(self, image: np.ndarray, scale: float | None) -> Upscaled:
        """The SR image of an image; that of a large one is made as it is taken, with the errors of `image`."""
        height, width = image.shape[:2]
        size = hr_size(self.network, height, width, self.scale if scale is None else scale)
        inference = self.inference
        if height * width > self._at_once:
            halo = self.network.capabilities.halo
            tile = max(math.isqrt(int(self._at_once)) - 2 * halo, 2 * halo, LEAST_SIDE)
            inference = replace(inference, tile=tile, halo=None)
        if inference.in_strips(self.network, height, width):
            return Upscaled(size, self._without_lack(inference.strips(self.network, image, size)))
        return Upscaled(size, [to_image(inference(self.network, to_tensor(image, inference.device), size))])

    def _without_lack(self, strips: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Strips as they are made; raises UserError where memory does not suffice."""
        try:
            yield from strips
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(self._out_of_memory()) from error

    def stream(
        self, frames: Iterable[Frame | Skipped], times: StageTimes, scale: float | None = None
    ) -> Iterator[tuple[Frame, Upscaled] | Skipped]:
        """Super-resolved images in order, as from `image`; what cannot be computed is skipped like unreadable files.

        Args:
            frames: what `read_frames` yields.
            times: the stages reading and SR are added, the latter also while a large image is saved.
            scale: factor; None takes `self.scale`.
        """
        for frame in times.over("reading", frames):
            if isinstance(frame, Skipped):
                yield frame
                continue
            with times.measure("SR"):
                sr = self._upscaled_or_reason(frame.image, scale)
            if isinstance(sr, str):
                yield Skipped(frame.file, sr)
            else:
                yield frame, replace(sr, strips=times.over("SR", sr.strips))

    def _upscaled_or_reason(self, image: np.ndarray, scale: float | None) -> Upscaled | str:
        """The SR image, or why there is none (memory, NaN, a size without tiles)."""
        try:
            return self._upscaled(image, scale)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return self._out_of_memory()
        except ValueError as error:
            return str(error)

    def _out_of_memory(self) -> str:
        """What to say, with advice that was not taken already."""
        side, half = self.inference.tile, self.inference.precision != "fp32"
        ways = [] if 0 < side <= SMALL_TILE else [f"tiles (--tile {min(side or 512, 512) // 2})"]
        return memory_message(ways if half else [*ways, "--half"])


def image_features(network: SRNetwork, image: np.ndarray, device: torch.device) -> Tensor:
    """Features (C, H, W), float32 on the CPU, of uint8 (H, W, 3) RGB. Raises UserError: see `feature_maps`."""
    return feature_maps(network, to_tensor(image, device))[0].float().cpu()


def load_network_alone(path: str, scale: float | None) -> SRNetwork:
    """SR network of a weight file.

    Raises:
        UserError: see `load_sr_for`; for a stage-3 checkpoint with a word about what to do instead.
    """
    try:
        return load_sr_for(path, scale)
    except CheckpointError as error:
        kind = checkpoint_kind(path)
        if kind == "detector":
            raise CheckpointError(
                f"{path}: a detector of stage 1 alone; give a checkpoint of stage 3, or the weights of an SR network"
            ) from error
        if kind == "system":
            raise CheckpointError(
                f"{path}: a whole stage-3 system; leave out --sr-only and add --save-sr --save-images false to save "
                "the images that it makes, or give the weights of an SR network"
            ) from error
        raise
