"""ExecuTorch: a program for phones and other small devices, its layers run by XNNPACK."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from deployment.export.traced import INPUT, ExportOptions, example, tracing
from utils.atomic_file import replace_text
from utils.errors import UserError
from utils.extras import require
from utils.yaml_strict import dump_yaml

if TYPE_CHECKING:
    from deployment.export.parity import Run

EXTRA = "mobile"
LARGEST = 2  # times imgsz: up to which an open side may go; memory is planned for it


def save_executorch(graph: nn.Module, folder: Path, options: ExportOptions, metadata: dict) -> Path:
    """NAME.pte in its folder, with metadata.yaml beside it.

    The batch is fixed. With `dynamic`, sides of an SR network are open from 2 to LARGEST times `imgsz`.

    Raises:
        UserError: ExecuTorch is not installed, or the graph cannot be exported by torch.export.
    """
    exir = require("executorch.exir", EXTRA, "include executorch")
    partitioner = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", EXTRA, "include executorch")
    folder.mkdir(exist_ok=True)
    file = folder / f"{folder.name.removesuffix('_executorch_model')}.pte"
    images = example(graph, options)[:1].repeat(options.batch, 1, 1, 1)
    with tracing("ExecuTorch"), torch.no_grad():
        program = torch.export.export(graph, (images,), dynamic_shapes=open_sides(options), strict=False)
        lowered = exir.to_edge_transform_and_lower(program, partitioner=[partitioner.XnnpackPartitioner()])
        file.write_bytes(lowered.to_executorch().buffer)
    replace_text(folder / "metadata.yaml", dump_yaml(metadata))
    return file


def check_sizes(graph: nn.Module, options: ExportOptions) -> None:
    """Raises UserError where sides are to stay open that ExecuTorch cannot keep open."""
    if options.dynamic and not graph.image_output:
        raise UserError("include executorch: detectors and whole calls have fixed sizes there; add --dynamic false")
    needed = -(-max(example(graph, options).shape[2:]) // LARGEST)  # it is traced with sides within the open range
    if options.dynamic and min(options.imgsz) < needed:
        given = " ".join(map(str, options.imgsz))
        raise UserError(
            f"include executorch: imgsz {given}: sides are open up to {LARGEST} times imgsz, which must be {needed} or "
            "more; give a larger --imgsz, or add --dynamic false"
        )


def open_sides(options: ExportOptions) -> dict | None:
    """What torch.export is told of the sides."""
    if not options.dynamic:
        return None
    names = zip((2, 3), ("height", "width"), options.imgsz, strict=True)
    return {INPUT: {axis: torch.export.Dim(name, min=2, max=LARGEST * side) for axis, name, side in names}}


def executorch_runtime(file: Path) -> Run:
    """The program as a function of one float32 array (B, 3, h, w)."""
    runtime = require("executorch.runtime", EXTRA).Runtime.get()
    method = runtime.load_program(str(file)).load_method("forward")

    def run(images: np.ndarray) -> list[np.ndarray]:
        return [value.numpy().copy() for value in method.execute([torch.from_numpy(images)])]

    return run
