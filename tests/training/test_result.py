"""A stage's result counts as finished for as many epochs as it has, and always where it does not say; its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.result import finished_epochs, in_words, is_finished
from utils.checkpoint import CheckpointError, save_network


def test_a_result_is_finished_up_to_its_epochs(tmp_path: Path):
    output = tmp_path / "result.pth"
    assert not is_finished(output, 1) and finished_epochs(output) == 0
    save_network(output, "sr", "bicubic", {}, {}, {"epochs": 3})
    assert [is_finished(output, epochs) for epochs in (2, 3, 4)] == [True, True, False]
    assert finished_epochs(output) == 3
    save_network(output, "sr", "bicubic", {}, {}, {})
    assert is_finished(output, 1000)
    output.write_bytes(output.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="truncated"):
        is_finished(output, 1)


def test_figures_in_words():
    assert in_words({"best_epoch": 3, "psnr": 28.123456, "map": 0.0, "kept": None}) == "best_epoch 3  psnr 28.12  map 0"
    assert in_words({}) == ""
