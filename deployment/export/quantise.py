"""Exported graphs in 8-bit integers: NNCF's post-training quantisation, calibrated on the user's images."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data.image_files import list_images
from data.images import read_rgb
from data.letterbox import blank, fit_letterbox, paste, resample
from deployment.export.parity import Run
from deployment.export.traced import EXTRA, INPUT, ExportOptions
from utils.convert import to_tensor
from utils.errors import UserError
from utils.extras import require
from utils.timing import spread

FORMATS = ("onnx", "openvino")  # that keep integers
WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
IMAGES = 64  # for calibration, spread over the folder
SIDE = 192  # longest of what an SR network of open sizes is calibrated on, in LR pixels
TRIED = 8  # images of the calibration on which the loss is measured
CERTAIN = 0.25  # score from which a box counts there
LEAST_PSNR = 35.0  # dB between the images of both; below it the file is worse than a smaller network


def check_quantisable(graph: nn.Module, formats: list[str], options: ExportOptions, folder: str | None) -> None:
    """Raises UserError where a graph or format has no int8 here, or no images are given."""
    if other := sorted(set(formats) - set(FORMATS)):
        raise UserError(f"int8: {', '.join(other)} keeps no integers here; include {' and '.join(FORMATS)} only")
    if "sr" in graph.outputs:
        raise UserError("int8: rounding would choose other patches in a whole call; export its SR network and detector")
    if options.half:
        raise UserError("int8 and half exclude each other; leave one out")
    if folder is None:
        raise UserError("int8: data is missing: a folder of images like those that this will see")
    require("nncf", EXTRA, "int8")


def calibration_images(folder: str | Path, sides: tuple[int, int] | None, batch: int = 1) -> list[np.ndarray]:
    """Images as the graph takes them: float32 (batch, 3, h, w) in [0, 1].

    Args:
        folder: of images.
        sides: height and width of the input, filled as in prediction; None: what an SR network of open sizes sees,
            the middle SIDE x SIDE of each.
        batch: every image is there so many times.

    Raises:
        UserError: the folder has no image.
    """
    files = list_images(folder)
    if not files:
        raise UserError(f"data: {folder} holds no image; give a folder with some dozens like those of the use")
    pixels = []
    for number in spread(len(files), IMAGES):
        image = read_rgb(files[number], max_pixels=10**9)
        if sides is None:
            top, left = (max(0, (side - SIDE) // 2) for side in image.shape[:2])
            image = image[top : top + SIDE, left : left + SIDE]
        else:
            box, canvas = fit_letterbox(*image.shape[:2], sides, 1), blank(*sides)
            paste(canvas, resample(image, *box.content), box.top, box.left)
            image = canvas
        pixels.append(to_tensor(image, "cpu").numpy().repeat(batch, axis=0))
    return pixels


def quantise(file: Path, images: list[np.ndarray]) -> None:
    """Replace an ONNX file by its int8 form: convolutions with a scale per output channel, activations with one each.

    What follows the last convolutions stays in fp32, as does the decoding of boxes: their coordinates and scores in one
    tensor would share one scale.
    """
    onnx, nncf = require("onnx", EXTRA), require("nncf", EXTRA, "int8")
    model = onnx.load(str(file))
    kept = nncf.IgnoredScope(names=after_last_convolution(model.graph.node), validate=False)
    data = nncf.Dataset([{INPUT: image} for image in images])
    nncf.set_log_level(logging.ERROR)
    model = nncf.quantize(model, data, ignored_scope=kept, subset_size=len(images))
    onnx.save(model, str(file))


def after_last_convolution(nodes: Any) -> list[str]:
    """Names of the nodes that no layer with weights follows; the fixed one of DFL does not count."""
    followed: set[str] = set()  # tensors that reach such a layer
    names = []
    for node in reversed(list(nodes)):
        weighted = node.op_type in WEIGHTED and "dfl" not in node.name
        if weighted or followed.intersection(node.output):
            followed.update(node.input)
        if not weighted and not followed.intersection(node.output):
            names.append(node.name)
    return names


@dataclass(frozen=True)
class Int8Loss:
    """What 8 bits cost on images of the calibration.

    Args:
        psnr: of SR images against those of PyTorch in dB, over all pixels; None for detectors.
        boxes: mean difference of coordinates in pixels, of boxes with a score of at least CERTAIN; None for SR
            networks, and where there is no such box.
        scores: likewise, of their scores.
    """

    psnr: float | None = None
    boxes: float | None = None
    scores: float | None = None

    @property
    def bearable(self) -> bool:
        """Whether the file is worth having: for SR, LEAST_PSNR."""
        return self.psnr is None or self.psnr >= LEAST_PSNR

    def __str__(self) -> str:
        if self.psnr is not None:
            advice = "" if self.bearable else f", under {LEAST_PSNR:g}: this network bears no int8, take a smaller one"
            return f"int8 against PyTorch: {self.psnr:.1f} dB{advice}"
        if self.boxes is None:
            return "int8 against PyTorch: no certain boxes on these images"
        return f"int8 against PyTorch: certain boxes differ by {self.boxes:.2f} px and {self.scores:.3f} in score"


@torch.no_grad()
def measure_loss(run: Run, graph: nn.Module, images: list[np.ndarray]) -> Int8Loss:
    """Compare a file with the graph on some images, evenly spread.

    Args:
        run: see `deployment.export.parity.runtime`.
        graph: the original.
        images: of `calibration_images`.
    """
    some = [images[number] for number in spread(len(images), TRIED)]
    pairs = [(graph(torch.from_numpy(image))[0].numpy(), run(image)[0]) for image in some]
    if graph.image_output:
        squares = np.concatenate([np.square(ours - theirs).ravel() for ours, theirs in pairs])
        return Int8Loss(psnr=float(-10 * np.log10(max(squares.mean(dtype=np.float64), 1e-12))))
    certain = [ours[0, 4:].max(0) >= CERTAIN for ours, _ in pairs]
    if not any(map(np.any, certain)):
        return Int8Loss()
    apart = np.concatenate(
        [np.abs(ours - theirs)[0, :, chosen] for (ours, theirs), chosen in zip(pairs, certain, strict=True)]
    )
    return Int8Loss(boxes=float(apart[:, :4].mean()), scores=float(apart[:, 4:].max(1).mean()))
