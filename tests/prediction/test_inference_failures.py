"""inference.py and what it cannot do: counted, skipped or refused, with the exit status that scripts rely on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from loading.systems import load_system
from models.mask_policy import parse_policy
from models.system import ConditionalSRDetector
from prediction.predictor import Predictor
from prediction.super_resolver import SuperResolver
from prediction.video import VideoFiles, frames_in
from tests.prediction.running import digests, draw_video, entries, infer, noise, spoil
from tests.small_disk import small_disk
from utils.device import is_out_of_memory

ROOT = Path(__file__).resolve().parents[2]
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
    assert "3 files skipped" in captured.out
    assert "out of memory; use a cheaper --policy (budget=0.1, all_fast) or --half or smaller images" in captured.err


def test_advice_against_lack_of_memory_names_nothing_that_was_done_already(weights):
    predictor = Predictor(load_system(weights), CPU)
    cheapest, learned = parse_policy("all_fast"), parse_policy("learned")
    assert predictor.out_of_memory(1, cheapest) == "out of memory; use --half or smaller images"
    assert "smaller --batch or a cheaper --policy" in predictor.out_of_memory(2, learned)
    predictor.half = True
    assert predictor.out_of_memory(1, cheapest) == "out of memory; use smaller images"


@pytest.mark.parametrize(("options", "advice"), [({}, "tiles (--tile 256) or --half"), ({"tile": 64}, "use --half")])
def test_advice_for_sr_alone(options, advice, monkeypatch):
    resolver = SuperResolver("shipped", 4, "cpu", **options)
    monkeypatch.setattr(resolver, "_upscaled", lambda *_: (_ for _ in ()).throw(MemoryError()))
    assert advice in resolver._upscaled_or_reason(noise(8, 8, 3), None)


def test_a_video_on_a_full_disk_is_told(weights, tmp_path, capsys):
    draw_video(tmp_path / "in.mp4", 3)
    with small_disk(tmp_path / "disk", 48) as disk:
        assert infer(weights, tmp_path / "in.mp4", disk / "out") == 1
        captured = capsys.readouterr()
        assert "Results saved" not in captured.out and "No space left on device" in captured.err


def test_a_disk_that_is_full_when_the_video_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("prediction.video.LEAST_FREE", 0)
    with small_disk(tmp_path / "disk", 256) as disk:
        videos = VideoFiles()
        for number in range(20):
            videos.write(disk / "out.mp4", noise(240, 320, 3, seed=number), 10.0, "")
        with pytest.raises(OSError, match="is the disk full"):
            videos.close()


def test_a_video_that_cannot_be_read_back_is_told(weights, tmp_path, capsys, monkeypatch):
    draw_video(tmp_path / "in.mp4", 2)
    monkeypatch.setattr("prediction.video.frames_in", lambda path: 1)
    assert infer(weights, tmp_path / "in.mp4", tmp_path / "out", "--save-json") == 1
    captured = capsys.readouterr()
    assert "in.mp4: holds 1 of the 2 frames" in captured.err and "Results saved" not in captured.out
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) == 2


def test_stopped_by_sigterm_with_complete_results(weights, tmp_path):
    draw_video(tmp_path / "in.mp4", 2000)
    command = [sys.executable, "inference.py", "--weights", str(weights), "--source", str(tmp_path / "in.mp4")]
    command += ["--out", str(tmp_path / "out"), "--device", "cpu", "--save-json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert any("frame 3)" in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.count("\n") == 1 and "stopped; what was saved" in errors
    listed = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert 3 <= len(listed) < 2000 and [entry["frame"] for entry in listed] == [*range(1, len(listed) + 1)]
    assert frames_in(tmp_path / "out" / "in.mp4") in (len(listed), len(listed) + 1)


def test_other_errors_are_not_taken_for_lack_of_memory():
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.parametrize("options", [[], ["--sr-only", "--weights", ""]])
def test_stopped_before_the_first_image(good, tmp_path, capsys, monkeypatch, options):
    """While weights are loaded, for instance: no traceback, no run folder."""

    def stop(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("inference.prepare_detection", stop)
    monkeypatch.setattr("inference.prepare_sr", stop)
    assert infer(tmp_path / "any.pth", good, tmp_path / "out", *options) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "inference.py: stopped before the first image"
    assert not (tmp_path / "out").exists()


def test_a_run_folder_that_cannot_be_made_says_what_to_do(weights, good, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert infer(weights, good, tmp_path / "file" / "out") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path / 'file' / 'out'}: cannot be created (Not a directory); name another --out" in error
    assert (tmp_path / "file").read_text() == "mine"
