"""Threads: a number, PyTorch's own choice, or a clear refusal."""

from __future__ import annotations

import warnings

import pytest
import torch

from utils import device
from utils.device import check_precision, choose_device, set_threads
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


def test_a_refusal_names_the_key(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^run\.device cuda: .* use --run\.device cpu"):
        choose_device("cuda", "run.device")
    with pytest.raises(UserError, match=r"^run\.precision fp16 needs CUDA"):
        check_precision("fp16", torch.device("cpu"), "run.precision")
    check_precision("bf16", torch.device("cpu"))
    check_precision("fp16", torch.device("cuda"))


def test_a_gpu_that_pytorch_cannot_use_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(device, "CARD", tmp_path)  # there
    with pytest.warns(UserWarning, match=r"PyTorch for CUDA 13\.0 cannot use it .* --run\.device cpu"):
        assert choose_device("auto", "run.device").type == "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_device("cpu")
        monkeypatch.setattr(device, "CARD", tmp_path / "none")
        choose_device("auto")
