"""Stage 1 end to end on a drawn data set: no network, inputs untouched, resume, clear errors."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from PIL import Image

from loading.detector_weights import load_detector
from stage1_pretrain_yolo import OUTPUT, main
from tests.drawn import draw_detection_set
from tests.small_yolo import write_small_yolo
from training.yolo_training import Float32Criterion, HRDetectionTrainer, NonFiniteLossError
from utils.checkpoint import CheckpointError, load_network
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]

NO_NETWORK = """
import json, socket, sys
attempts = []
def refuse(*args, **kwargs):
    attempts.append(repr(args))
    raise OSError("refused by the test")
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, refuse)
connect = socket.socket.connect
socket.socket.connect = lambda s, address: connect(s, address) if s.family == socket.AF_UNIX else refuse(address)
socket.socket.connect_ex = refuse
from stage1_pretrain_yolo import main
code = main(sys.argv[1:])
print("\\nATTEMPTS", json.dumps(attempts))
sys.exit(code)
"""


def arguments(data: Path, out: Path, **options) -> list[str]:
    values = {
        "run.out": out, "run.device": "cpu", "run.threads": 1, "run.workers": 0, "data.yaml": data, "data.imgsz": 64,
        "detector.model": write_small_yolo(data.parent.parent), "epochs": 1, "batch": 4, "warmup_epochs": 0,
        "augment.close_mosaic": 0,
    }  # fmt: skip
    return [f"--{key}={value}" for key, value in (values | options).items()]


def fingerprint(folder: Path) -> dict[str, tuple]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def metrics_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def data(tmp_path) -> Path:
    return draw_detection_set(tmp_path / "set", images=10)


def test_one_epoch_makes_a_checkpoint_without_network_or_writing_to_the_input(tmp_path, data):
    frayed = tmp_path / "set" / "images" / "train" / "0.jpg"
    Image.open(frayed.with_suffix(".png")).save(frayed, quality=95)
    frayed.write_bytes(frayed.read_bytes() + b"\0\0")  # Ultralytics rewrites JPEG files that do not end in their marker
    (tmp_path / "set" / "images" / "train" / "bad.png").write_bytes(b"no image")
    before, out = fingerprint(tmp_path / "set"), tmp_path / "run"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # building the font list anew takes ten seconds
    environment.pop("YOLO_OFFLINE", None)
    small = {"data.imgsz": "[64,32]", "run.precision": "bf16", "run.workers": 1}
    options = arguments(data, out, **small, **{"detector.model": "yolov5n.yaml"})
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, *options], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ATTEMPTS []" in done.stdout
    assert fingerprint(tmp_path / "set") == before

    payload = load_network(out / OUTPUT, kind="detector")
    assert payload["name"] == "yolo" and payload["meta"]["epochs"] == 1 and payload["meta"]["imgsz"] == [64, 32]
    assert {"best_epoch", "map50_95", "map50"} <= payload["meta"]["metrics"].keys()
    assert all(v.dtype == torch.float32 for v in payload["weights"].values() if v.is_floating_point())
    detector, taken = load_detector("yolov5n.yaml", out / OUTPUT, ["dark", "bright"])
    assert taken.startswith("427 of 427") and detector.predict(torch.rand(1, 3, 64, 64), conf=0.0)
    (line,) = metrics_of(out)
    assert {"train/box", "train/cls", "train/dfl", "val/map50_95", "val/map50", "val/box", "lr"} <= line.keys()
    assert (out / "tensorboard").is_dir()


def test_interrupted_run_is_resumed_and_a_finished_one_left_alone(tmp_path, data, monkeypatch, capsys):
    out, save = tmp_path / "run", HRDetectionTrainer.save_model

    def save_then_stop(trainer):
        save(trainer)
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(HRDetectionTrainer, "save_model", save_then_stop)
    # A YOLO26 in few layers: its head has two branches, whose losses weigh by a schedule.
    (tmp_path / "yolo26").mkdir()
    options = {"epochs": 3, "detector.model": write_small_yolo(tmp_path / "yolo26", end2end=True, reg_max=1)}
    with pytest.raises(KeyboardInterrupt):
        main(arguments(data, out, **options))
    assert not (out / OUTPUT).exists()
    monkeypatch.undo()
    seen = []
    update = Float32Criterion.update
    monkeypatch.setattr(Float32Criterion, "update", lambda c: seen.append(c.criterion.updates) or update(c))
    assert main([*arguments(data, out, **options), "--run.resume"]) == 0
    assert seen == [2]  # the schedule of YOLO26's loss went on in the third epoch
    assert [line["step"] for line in metrics_of(out)] == [1, 2, 3]
    stamp = (out / OUTPUT).stat().st_mtime_ns
    assert main([*arguments(data, out, **options), "--run.resume"]) == 0
    assert "already finished" in capsys.readouterr().out and (out / OUTPUT).stat().st_mtime_ns == stamp
    assert main([*arguments(data, out, **options | {"epochs": 4}), "--run.resume"]) == 0
    assert "run.resume: epochs is 4, was 3;" in capsys.readouterr().out
    assert [line["step"] for line in metrics_of(out)] == [1, 2, 3, 4]
    assert load_network(out / OUTPUT)["meta"]["epochs"] == 4


def test_run_killed_after_its_last_epoch_only_writes_the_result(tmp_path, data, monkeypatch):
    out = tmp_path / "run"
    assert main(arguments(data, out)) == 0
    whole = load_network(out / OUTPUT)
    (out / OUTPUT).unlink()
    monkeypatch.setattr(HRDetectionTrainer, "train", None)
    assert main([*arguments(data, out), "--run.resume"]) == 0
    again = load_network(out / OUTPUT)
    assert again["meta"] == whole["meta"]
    assert all(torch.equal(v, again["weights"][k]) for k, v in whole["weights"].items())
    (out / OUTPUT).unlink()
    best = out / "ultralytics" / "weights" / "best.pt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"best\.pt: damaged .* does not match its checksum"):
        main([*arguments(data, out), "--run.resume"])
    (out / "ultralytics" / "weights" / "last.pt").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(CheckpointError, match=r"last\.pt: damaged"):
        main([*arguments(data, out), "--run.resume"])


@pytest.mark.parametrize("where", ["loss", "gradient", "statistic"])
def test_non_finite_numbers_stop_the_run_before_the_step(tmp_path, data, monkeypatch, where):
    call = Float32Criterion.__call__

    def poisoned(criterion, preds, batch):
        loss, items = call(criterion, preds, batch)
        if where == "statistic":
            trainers[0].model.model[0].bn.running_var.data[0] = float("nan")
            return loss, items
        if where == "loss":
            return loss * float("nan"), items | {"cls_loss": items["cls_loss"] * float("nan")}
        loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss, items

    trainers, setup = [], HRDetectionTrainer._setup_train
    monkeypatch.setattr(HRDetectionTrainer, "_setup_train", lambda self: trainers.append(self) or setup(self))
    monkeypatch.setattr(Float32Criterion, "__call__", poisoned)
    term = {"loss": "cls_loss", "gradient": "gradient", "statistic": "a statistic of BatchNorm"}[where]
    with pytest.raises(NonFiniteLossError, match=rf"stage 1, epoch 1: {term} is not finite on {tmp_path}.*\.png"):
        main(arguments(data, tmp_path / "run"))
    assert not (tmp_path / "run" / OUTPUT).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data.lr": "native"}, "stage 1 needs HR images"),
        ({"data.imgsz": 100}, "multiples of 32"),
        ({"data.imgsz": "[64,64,64]"}, "expected one side"),
        ({"run.precision": "fp16"}, "fp16 needs CUDA"),
        ({"data.yaml": "missing.yaml"}, r"missing\.yaml"),
        ({"detector.model": "yolo99z.yaml"}, "no model YAML"),
        ({"detector.weights": "yolo11n.pt"}, "no such file"),
    ],
)
def test_bad_settings_are_named(tmp_path, data, options, message):
    with pytest.raises((ValueError, CheckpointError), match=message):
        main(arguments(data, tmp_path / "run", **options))


def test_lack_of_memory_is_called_so_and_damaged_averages_are_not_saved(tmp_path, data, monkeypatch):
    call = Float32Criterion.__call__

    def no_memory(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(Float32Criterion, "__call__", no_memory)
    with pytest.raises(UserError, match=r"stage 1: out of memory; take batch 2 or smaller data\.imgsz"):
        main(arguments(data, tmp_path / "run"))
    monkeypatch.setattr(Float32Criterion, "__call__", call)
    save = HRDetectionTrainer.save_model

    def damage(trainer):
        trainer.ema.ema.model[0].bn.running_mean[0] = float("inf")
        return save(trainer)

    monkeypatch.setattr(HRDetectionTrainer, "save_model", damage)
    with pytest.raises(NonFiniteLossError, match=r"average\.model\.0\.bn\.running_mean is not finite; it was not"):
        main([*arguments(data, tmp_path / "run"), "--run.resume"])
    assert not list((tmp_path / "run").rglob("*.pt"))
