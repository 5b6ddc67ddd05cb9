"""The one OpenVINO core of this process."""

from __future__ import annotations

from functools import cache
from typing import Any

from deployment.export.traced import EXTRA
from utils.extras import require


@cache
def openvino_core() -> Any:
    """OpenVINO's `Core`, made once and never given up.

    Its CPU plugin gives the thread that loads it another stack for signals, and frees that stack with the last model:
    where another thread drops the model, or the garbage collector does in one, the next signal ends the process.

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    return require("openvino", EXTRA).Core()
