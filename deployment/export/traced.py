"""What all formats share: how a graph is to be written, and what it is traced with."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.errors import UserError

EXTRA = "export"
INPUT = "images"
NO_DATA_SIDES = (19, 23)  # of the example where sizes stay open: no multiples of anything


@dataclass(frozen=True)
class ExportOptions:
    """How to write.

    Args:
        imgsz: height and width of the input; with `dynamic` only what runtimes are told to expect.
        batch: images per call, likewise.
        dynamic: batch, height and width stay open.
        half: weights in 16 bit: ONNX computes in fp16 with fp32 inputs and outputs, OpenVINO stores fp16 and computes
            in what the device does, TensorRT may choose fp16. TorchScript and ExecuTorch stay fp32.
    """

    imgsz: tuple[int, int]
    batch: int = 1
    dynamic: bool = True
    half: bool = False


@contextlib.contextmanager
def tracing(what: str) -> Iterator[None]:
    """Tracers warn about every number that they take as fixed, and print whole graphs where they fail: the check of
    parity at other sizes says what matters.

    Raises:
        UserError: tracing failed, with the first line of the reason.
    """
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"export to {what}: this network cannot be traced ({type(error).__name__}: {reason})"
        ) from error


def example(graph: nn.Module, options: ExportOptions) -> Tensor:
    """What a graph is traced with; where sizes stay open, they tell nothing but of what they must be multiples."""
    multiple = getattr(graph, "multiple", 1)
    open_sides = NO_DATA_SIDES if multiple == 1 else (2 * multiple, 3 * multiple)
    batch, sides = (2, open_sides) if options.dynamic else (options.batch, options.imgsz)
    return torch.rand(batch, 3, *sides, generator=torch.Generator().manual_seed(0))
