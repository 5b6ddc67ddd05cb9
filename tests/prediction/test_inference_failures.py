"""inference.py and what it cannot do: counted, skipped or refused, with the exit status that scripts rely on."""

from __future__ import annotations

import pytest
import torch

from models.system import ConditionalSRDetector
from tests.prediction.running import digests, entries, infer, spoil
from utils.device import is_out_of_memory

CPU = torch.device("cpu")


def test_unreadable_files_are_named_counted_and_skipped(weights, good, tmp_path, capsys):
    spoil(good)
    before = digests(good)
    assert infer(weights, good, tmp_path / "out", "--save-json", "--batch", "4") == 1
    assert digests(good) == before and len(entries(tmp_path / "out")) == 5
    captured = capsys.readouterr()
    assert "8 files, 5 images" in captured.out and "3 files skipped" in captured.out
    for name in ("corrupt.jpg", "text.png", "broken.mp4"):
        assert f"{good / name}: skipped, " in captured.out and f"{good / name}: " in captured.err
    assert f"{good / 'text.png'}: not an image" in captured.err


def test_huge_images_are_skipped_before_decoding(weights, good, tmp_path, capsys):
    assert infer(weights, good, tmp_path / "out", "--max-pixels", "300") == 1
    assert "more than the limit of 300" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weights", "nowhere.pth"), "nowhere.pth: does not exist"),
        (("--weights", ""), "--weights"),
        (("--source", "nowhere/*.png"), "no image or video found"),
        (("--source", ""), "--source"),
        (("--policy", "budget=2"), "budget"),
        (("--policy", "clever"), "learned"),
        (("--out", ""), "out is ''"),
    ],
)
def test_bad_arguments(weights, good, tmp_path, capsys, options, message):
    assert infer(weights, good, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_cuda_without_cuda(weights, good, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert infer(weights, good, tmp_path / "out", "--device", "cuda") == 2
    assert "--device cpu" in capsys.readouterr().err


def test_unknown_option(weights, good, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        infer(weights, good, tmp_path / "out", "--save-text")
    assert stopped.value.code == 2


def test_damaged_weights(good, tmp_path, capsys):
    (tmp_path / "w.pth").write_bytes(b"PK not really")
    assert infer(tmp_path / "w.pth", good, tmp_path / "out") == 2
    assert "w.pth: no weights" in capsys.readouterr().err


def test_a_full_disk_is_told(weights, good, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("prediction.prediction_writer.PredictionWriter.write", full)
    assert infer(weights, good / "dot.png", tmp_path / "out") == 1
    assert "No space left on device" in capsys.readouterr().err


def test_out_of_memory_skips_and_tells_what_to_do(weights, good, tmp_path, capsys, monkeypatch):
    super_resolve = ConditionalSRDetector.super_resolve

    def fail_on_large(self, lr, policy, content=None):
        if lr.shape[-1] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super_resolve(self, lr, policy, content)

    monkeypatch.setattr(ConditionalSRDetector, "super_resolve", fail_on_large)
    assert infer(weights, good, tmp_path / "out", "--save-json") == 1
    assert len(entries(tmp_path / "out")) == 2
    captured = capsys.readouterr()
    assert "3 files skipped" in captured.out and "smaller --batch, a cheaper --policy" in captured.err


def test_other_errors_are_not_taken_for_lack_of_memory():
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
