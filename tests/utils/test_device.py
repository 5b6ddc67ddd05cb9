"""Threads: a number, PyTorch's own choice, or a clear refusal."""

from __future__ import annotations

import pytest
import torch

from utils.device import set_threads
from utils.errors import UserError


def test_threads_are_set_kept_or_refused():
    before = torch.get_num_threads()
    try:
        set_threads(before + 1)
        set_threads(0)
        assert torch.get_num_threads() == before + 1
        with pytest.raises(UserError, match="threads is -1; give 1 or more"):
            set_threads(-1)
    finally:
        torch.set_num_threads(before)
