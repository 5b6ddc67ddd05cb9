"""Stages 1 and 3 with few labels or none, a teacher, HR steps and budgets: from the command line to the checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import stage1_pretrain_yolo as stage1
import stage3_finetune_joint as stage3
from loading.systems import load_detector_checkpoint, load_system
from tests.drawn import draw_detection_set
from tests.small_yolo import write_small_yolo

NETWORKS = [
    "--sr_fast.name=espcn",
    "--sr_fast.args={n_feats: 8}",
    "--sr_quality.name=edsr",
    '--sr_quality.args={"n_blocks": 1, "n_feats": 4}',
]


def arguments(data: Path, out: Path, *options: str) -> list[str]:
    return [
        f"--run.out={out}", "--run.device=cpu", "--run.workers=0", "--run.log_every=1", f"--data.yaml={data}",
        "--data.imgsz=64", "--data.scale=2", "--masker.patch=8", *NETWORKS, "--optim.epochs=1", "--optim.batch=2",
        "--optim.warmup=1", "--val_images=0", f"--detector.model={data.parent / 'small_yolo.yaml'}", *options,
    ]  # fmt: skip


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write_small_yolo(folder)
    return draw_detection_set(folder, images=8)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, data: Path) -> Path:
    """Stage-1 checkpoint that saw a quarter of the labels."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    options = [f"--detector.model={data.parent / 'small_yolo.yaml'}"]
    options += ["--run.device=cpu", "--run.threads=1", "--run.workers=0", "--data.imgsz=64", "--epochs=1", "--batch=2"]
    options += ["--data.label_share=0.25", "--warmup_epochs=0", "--augment.close_mosaic=0"]
    assert stage1.main([f"--run.out={out}", f"--data.yaml={data}", *options]) == 0
    return out / stage1.OUTPUT


def test_few_labels_with_everything(tmp_path, data, teacher, capsys):
    """Stage 1 with a quarter of the labels, its detector as teacher and start of stage 3 with the same quarter."""
    view = teacher.parent / "view" / "images"
    assert [len(list((view / split).iterdir())) for split in ("train", "val")] == [2, 8]
    assert torch.load(teacher, weights_only=True)["meta"]["labelled_images"] == 2
    out = tmp_path / "run"
    options = [f"--losses.teacher={teacher}", f"--detector.weights={teacher}", "--losses.distill=1.0"]
    options += ["--losses.distill_outputs=0.5", "--losses.rec=1", "--losses.hr_share=0.25", "--optim.ema=0.9"]
    options += ["--data.label_share=0.25", "--data.unlabelled=true", "--masker.budget_dropout=[0.1, 0.6]"]
    assert stage3.main(arguments(data, out, *options)) == 0
    assert "8 training images, 2 of them with labels" in capsys.readouterr().out
    steps = [{name for name in row if name.startswith("train/")} for row in rows(out) if "train/total" in row]
    terms = {"det", "box", "cls", "dfl", "distill", "distill_outputs"}
    assert [steps[3] == {"train/total"} | {f"train/hr_{name}" for name in terms}] == [True]
    assert all({f"train/{name}" for name in terms | {"rec", "kept_share"}} <= step for step in steps[:3])
    payload = torch.load(out / stage3.OUTPUT, weights_only=True)
    assert (payload["meta"]["training_images"], payload["meta"]["labelled_images"]) == (8, 2)
    assert set(payload["weights"]) == set(load_system(out / stage3.OUTPUT).state_dict())
    state = torch.load(out / "checkpoints" / "last.pth", weights_only=True)
    assert set(state["model"]) == set(state["ema"]["shadow"]) == {f"system.{name}" for name in payload["weights"]}


def test_frozen_detector_without_labels_learns_the_same_whatever_they_say(tmp_path, data, teacher):
    options = ["--mode=frozen_detector", "--losses.det=0", "--losses.distill=1", f"--detector.weights={teacher}"]
    data = Path(shutil.copytree(data.parent, tmp_path / "set")) / data.name  # its labels are changed
    results = []
    for name in ("right", "wrong"):
        out = tmp_path / name
        assert stage3.main(arguments(data, out, *options)) == 0
        results.append((out, torch.load(out / stage3.OUTPUT, weights_only=True)))
        for file in (data.parent / "labels" / "train").iterdir():
            file.write_text("1 0.5 0.5 0.9 0.9\n")
    (out, first), (_, second) = results
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
    assert first["meta"]["labelled_images"] == 0
    detector = load_detector_checkpoint(teacher).state_dict()
    trained = load_system(out / stage3.OUTPUT).detector.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in detector.items())
    assert not any("train/det" in row for row in rows(out))
    assert any(row.get("train/distill", 0) > 0 for row in rows(out))


def test_labels_take_up_what_was_learned_without_them(tmp_path, data, teacher, capsys):
    """Warm-up through the frozen detector, then jointly; the second run begins with the masker and SR of the first."""
    options = ["--mode=frozen_detector", "--losses.det=0", "--losses.distill=1", f"--detector.weights={teacher}"]
    assert stage3.main(arguments(data, tmp_path / "warm", *options)) == 0
    warm = tmp_path / "warm" / stage3.OUTPUT
    still = [
        "--optim.lr=0",
        "--optim.lr_low=0",
        "--optim.lr_masker=0",
        "--optim.weight_decay=0",
        "--losses.sparsity=mean",
    ]
    begin = [f"--start={warm}", f"--detector.weights={teacher}", "--sr_fast.weights=nowhere.pth"]
    for sr in ("conditional", "sr_quality"):
        mode = ["--mode=detector_only"] if sr == "sr_quality" else []
        assert stage3.main(arguments(data, tmp_path / sr, f"--sr={sr}", *mode, *begin, *still)) == 0
    learned = load_system(warm).front
    joint, single = (load_system(tmp_path / sr / stage3.OUTPUT).front for sr in ("conditional", "sr_quality"))
    buffers = {name for name, _ in learned.named_buffers()}  # the masker's running statistics move on
    for name, value in joint.state_dict().items():
        assert name in buffers or torch.equal(value, learned.state_dict()[name]), name
    assert all(torch.equal(v, learned.sr_quality.state_dict()[name]) for name, v in single.state_dict().items())
    for wrong, message in {
        "--masker.patch=16": r"masker\.patch and channels \(8, 16\), the configuration \(16, 16\)",
        '--sr_quality.args={"n_blocks": 2, "n_feats": 4}': r"start: .*but sr_quality is edsr\(.*n_blocks=2",
        f"--start={tmp_path / 'sr_quality' / stage3.OUTPUT}": "name a checkpoint of sr conditional",
    }.items():
        with pytest.raises(ValueError, match=message):
            stage3.main(arguments(data, tmp_path / "refused", *begin, wrong))


@pytest.mark.slow
def test_masker_alone_then_in_turns(tmp_path, data, teacher):
    """SR_Quality through the frozen detector, a masker that shares SR_Fast's layers beside it, then all in turns."""
    frozen = ["--mode=frozen_detector", "--losses.det=0", "--losses.distill=1", f"--detector.weights={teacher}"]
    assert stage3.main(arguments(data, tmp_path / "sr", "--sr=sr_quality", *frozen)) == 0
    quality = tmp_path / "sr" / stage3.OUTPUT
    alone = [f"--sr_quality.weights={quality}", "--freeze=[sr_quality]", "--masker.shared_stem=true"]
    assert stage3.main(arguments(data, tmp_path / "masker", *frozen, *alone)) == 0
    warm = load_system(tmp_path / "masker" / stage3.OUTPUT).front
    tuned = load_system(quality).front.state_dict()
    assert all(torch.equal(value, tuned[name]) for name, value in warm.sr_quality.state_dict().items())
    fixed = ["--freeze=[masker,sr_fast]", "--masker.shared_stem=true", "--optim.ema=0.9"]
    start = f"--start={tmp_path / 'masker' / stage3.OUTPUT}"
    assert stage3.main(arguments(data, tmp_path / "fixed", *frozen, *fixed, start)) == 0
    still = load_system(tmp_path / "fixed" / stage3.OUTPUT).front
    for part in ("masker", "sr_fast"):  # the threshold too is not set anew
        before = getattr(warm, part).state_dict()
        assert all(torch.equal(value, before[name]) for name, value in getattr(still, part).state_dict().items())
    assert not torch.equal(still.sr_quality.head[0].weight, warm.sr_quality.head[0].weight)
    begin = [f"--start={tmp_path / 'masker' / stage3.OUTPUT}", f"--detector.weights={teacher}"]
    with pytest.raises(ValueError, match=r"start: masker\.shared_stem of .* another than that of the configuration"):
        stage3.main(arguments(data, tmp_path / "refused", *begin))
    turns = ["--masker.shared_stem=true", "--losses.alternate=true", "--losses.hr_share=0.25"]
    assert stage3.main(arguments(data, tmp_path / "turns", *begin, *turns)) == 0
    steps = [row for row in rows(tmp_path / "turns") if "train/total" in row]
    assert ["train/hr_det" in row for row in steps] == [False, False, False, True]
    assert all("train/det" in row for row in steps[:3])
    detector = load_detector_checkpoint(teacher).state_dict()
    learned = load_system(tmp_path / "turns" / stage3.OUTPUT)
    assert not all(torch.equal(value, detector[name]) for name, value in learned.detector.state_dict().items())
    assert not torch.equal(learned.front.masker.logits.weight, warm.masker.logits.weight)


def test_images_without_labels_are_left_out(tmp_path, data, capsys):
    assert stage3.main(arguments(data, tmp_path / "run", "--data.label_share=0.25")) == 0
    assert "2 training images, 2 of them with labels" in capsys.readouterr().out
    assert sum("train/total" in row for row in rows(tmp_path / "run")) == 1


def test_stage_1_refuses_images_without_labels(tmp_path, data):
    with pytest.raises(ValueError, match=r"data\.unlabelled: stage 1 learns from labels only"):
        stage1.main([f"--run.out={tmp_path / 'run'}", f"--data.yaml={data}", "--data.unlabelled=true"])
