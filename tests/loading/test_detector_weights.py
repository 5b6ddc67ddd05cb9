"""A detector's weight file is what its content says, whatever its suffix."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loading.detector_weights import load_detector, read_weights
from models.detector_yolo import YoloDetector
from tests.loading.test_load import TINY
from utils.checkpoint import CheckpointError, save_network

NAMES = ("a", "b")
ANY_SUFFIX = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")


@pytest.fixture(scope="module")
def tiny() -> YoloDetector:
    torch.manual_seed(0)
    return YoloDetector(TINY, NAMES).eval()


def save(detector: YoloDetector, path: Path) -> Path:
    save_network(path, "detector", detector.spec["name"], detector.spec["args"], detector.state_dict(), {"stage": 1})
    return path


def assert_same_weights(first: YoloDetector, second: YoloDetector) -> None:
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))


def test_a_plain_state_dict_is_one_under_any_suffix(tiny: YoloDetector, tmp_path: Path):
    tensors = tiny.net.state_dict()
    layouts = {
        "bare": lambda path: torch.save(tensors, path),
        "nested": lambda path: torch.save({"state_dict": tensors, "epoch": 3}, path),
        "wrapped": lambda path: torch.save({f"module.net.{key}": value for key, value in tensors.items()}, path),
        "whole": lambda path: torch.save({f"module.model.{key}": value for key, value in tensors.items()}, path),
        "averaged": lambda path: torch.save(
            {"n_averaged": torch.tensor(3)} | {f"module.{key}": value for key, value in tensors.items()}, path
        ),
        "ema": lambda path: torch.save({"params_ema": {f"module.{k}": v for k, v in tensors.items()}}, path),
        "old": lambda path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
        "safe": lambda path: save_file(tensors, path),
    }
    for name, write in layouts.items():
        for suffix in ANY_SUFFIX:
            write(path := tmp_path / f"{name}{suffix}")
            detector, taken = load_detector(TINY, path, NAMES)
            assert taken.startswith(f"{len(tensors)} of {len(tensors)} "), path
            assert_same_weights(detector, tiny)
            if suffix != ".bin":
                with pytest.raises(CheckpointError, match="names no network and no classes; give it as"):
                    load_detector(str(path), None, NAMES)


def test_other_kinds_are_what_they_are_under_any_suffix(tiny: YoloDetector, tmp_path: Path):
    for suffix in ANY_SUFFIX[:4]:
        own = save(tiny, tmp_path / f"own{suffix}")
        assert_same_weights(load_detector(TINY, own, NAMES)[0], tiny)
        with pytest.raises(CheckpointError, match="its classes are"):
            load_detector(TINY, own, ["a", "c"])
        whole = tmp_path / f"whole{suffix}"
        torch.save({"model": copy.deepcopy(tiny.net), "train_args": {}}, whole)
        for path in (own, whole):
            detector, _ = load_detector(str(path))
            assert detector.names == NAMES
            assert_same_weights(detector, tiny)


def test_a_pickled_network_of_others_says_what_to_do(tmp_path):
    torch.save({"model": Stranger()}, tmp_path / "theirs.pt")
    with pytest.raises(
        CheckpointError, match=r"theirs\.pt: holds pickled objects.*Stranger.*save the state dict alone"
    ):
        read_weights(tmp_path / "theirs.pt")


class Stranger(torch.nn.Module):
    """A network of which the reader has no code."""


def test_a_file_without_named_tensors_says_what_it_holds(tmp_path):
    torch.save({"epoch": 3, "loss": torch.ones(1).item()}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth: .* nor named tensors \(its keys are 'epoch', 'loss'\)"):
        read_weights(tmp_path / "odd.pth")
