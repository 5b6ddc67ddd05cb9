"""Publishing a stage-2 checkpoint: the file builds itself, the card tells what the run did, and nothing is replaced."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors import safe_open

import stage2_pretrain_sr
from configs.schema import OptimConfig, Stage2Config
from evaluation.sr_eval import benchmark, validation_sets
from loading.load_sr import load_sr
from models import build_sr
from tests.drawn import AnySize, draw_photographs
from tools.publish_weights import check_agreement, main, training_seconds
from tools.weight_card import (
    card_text,
    checkpoint,
    data,
    flow,
    loss,
    machine,
    protocol,
    schedule,
    short,
    training_command,
)
from utils.checkpoint import CheckpointError, load_network, save_network
from utils.config import changed_keys, load_config, parse_config, save_config
from utils.yaml_strict import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run folder: ESPCN is trained, SR_Quality is bicubic."""
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("stage2")
    train, val = draw_photographs(folder / "Drawn100"), draw_photographs(folder / "Val3", seed=1)
    options = [
        f"--run.out={folder / 'run'}", "--run.device=cpu", "--run.threads=1", "--run.workers=0", "--run.log_every=1",
        "--run.seed=3", "--scale=2", f"--data.train=[{train}]", f"--data.val=[{val}]", "--data.patch=12",
        "--data.samples_per_epoch=18", "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 4}",
        "--sr_quality.name=bicubic", "--sr_quality.args={}", "--val_every=1", "--optim_fast.epochs=2",
        "--optim_fast.batch=4", "--optim_fast.ema=0.9", "--optim_fast.warmup=0",
    ]  # fmt: skip
    assert stage2_pretrain_sr.main(options) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder / "run"


def publish(run: Path, out: Path, *options: str, file: str = "sr_fast_pretrained.pth") -> int:
    return main([str(run / file), "--name=espcn_4_x2", f"--out={out}", "--device=cpu", *options])


def test_the_file_is_the_network_and_the_card_says_what_it_reaches(run: Path, tmp_path: Path, capsys):
    assert publish(run, tmp_path / "weights") == 0
    assert sorted(file.name for file in (tmp_path / "weights").iterdir()) == [
        "SHA256SUMS",
        "espcn_4_x2.md",
        "espcn_4_x2.safetensors",
    ]
    file, card = tmp_path / "weights" / "espcn_4_x2.safetensors", (tmp_path / "weights" / "espcn_4_x2.md").read_text()
    with safe_open(file, framework="pt") as header:
        assert header.metadata() == {"name": "espcn", "args": json.dumps({"scale": 2, "n_feats": 4})}
    published, trained = load_sr(file), load_sr(run / "sr_fast_pretrained.pth")
    x = torch.rand(1, 3, 8, 9)
    assert torch.equal(published(x), trained(x))
    metrics = benchmark(published, validation_sets([run.parent / "Val3"], [2], 10**6), torch.device("cpu"))
    assert (
        f"| Val3 | {metrics['psnr/Val3']:.2f} dB / {metrics['ssim/Val3']:.4f}: " in card
        and card in capsys.readouterr().out
    )
    parameters = sum(p.numel() for p in trained.parameters())
    assert f"`espcn`, `{{n_feats: 4}}`, {parameters:,} parameters, " in card
    assert "| Drawn100, LR by antialiased bicubic" in card and str(run.parent) not in card
    for part in ("L1, Adam, 8 steps of 4 patches of 12 x 12 LR", "rate 0.001 with cosine decay to 5e-05", "EMA 0.9"):
        assert part in card
    assert "warm-up" not in card and "fp32, seed 3" in card and "min, validations included" in card
    assert f"PyTorch {torch.__version__}" in card


def test_the_commands_of_the_card_are_the_run(run: Path, tmp_path: Path):
    publish(run, tmp_path)
    lines = (tmp_path / "espcn_4_x2.md").read_text().split("```")[1].strip().splitlines()
    train, compare = (shlex.split(line) for line in lines)
    assert train[:2] == ["python", "stage2_pretrain_sr.py"] and compare[:3] == ["python", "evaluate.py", "sr"]
    config = load_config(Stage2Config, run / "config.yaml")
    again = parse_config(Stage2Config, "", train[2:])
    assert changed_keys(config, again) == ["data.train", "data.val"]
    assert again.data.train == ["datasets/Drawn100"] and again.data.val == ["datasets/Val3"]
    assert compare[3:] == ["--weights", "weights/espcn_4_x2.safetensors", "--hr", "[datasets/Val3]", "--scale", "2"]


def test_best_weights_say_after_which_step(run: Path, tmp_path: Path):
    payload = load_network(run / "sr_fast_best.pth", "sr")
    meta = payload["meta"] | {"step": 4, "epochs": 1}
    early = tmp_path / "sr_fast_best.pth"
    save_network(early, "sr", payload["name"], payload["args"], payload["weights"], meta)
    assert publish(tmp_path, tmp_path / "out", f"--run={run}", file=early.name) == 0
    card = (tmp_path / "out" / "espcn_4_x2.md").read_text()
    chosen = "| checkpoint | weights of the best validation, after step 4, chosen by the PSNR on Val3; "
    assert f"{chosen}**chosen on images that are reported below**: Val3 |" in card


def test_present_files_are_kept(run: Path, tmp_path: Path, capsys):
    (tmp_path / "espcn_4_x2.md").write_text("mine")
    with pytest.raises(SystemExit) as end:
        publish(run, tmp_path)
    assert end.value.code == 2 and "add --overwrite" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["espcn_4_x2.md"]
    assert (tmp_path / "espcn_4_x2.md").read_text() == "mine"
    assert publish(run, tmp_path, "--overwrite") == 0 and publish(run, tmp_path, "--overwrite") == 0
    assert (tmp_path / "espcn_4_x2.md").read_text().startswith("# espcn_4_x2: espcn, x2\n")


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a.safetensors", "a.md"])
def test_names_are_plain(run: Path, tmp_path: Path, name: str, capsys):
    with pytest.raises(SystemExit):
        main([str(run / "sr_fast_pretrained.pth"), f"--name={name}", f"--out={tmp_path}"])
    assert "must be a plain name" in capsys.readouterr().err


def test_what_cannot_be_published_leaves_nothing(run: Path, tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match=r"absent.pth: does not exist"):
        publish(run, out, file="absent.pth")
    with pytest.raises(ValueError, match=r"bicubic has no weights"):
        publish(run, out, file="sr_quality_pretrained.pth")
    network = build_sr("espcn", 2, {"n_feats": 4})
    save_network(tmp_path / "a.pth", "sr", "espcn", network.spec["args"], network.state_dict(), {})
    with pytest.raises(CheckpointError, match=r"a.pth: does not say which network"):
        publish(tmp_path, out, f"--run={run}", file="a.pth")
    meta = {"role": "sr_fast", "metrics": {}, "seed": 0, "epochs": 1}
    save_network(tmp_path / "a.pth", "sr", "espcn", network.spec["args"], network.state_dict(), meta)
    with pytest.raises(FileNotFoundError, match=r"config.yaml does not exist; name the run folder with --run"):
        publish(tmp_path, out, file="a.pth")
    save_config(Stage2Config(scale=2), tmp_path / "config.yaml")
    with pytest.raises(ValueError, match=r"data.val is empty; name folders .* --hr"):
        publish(tmp_path, out, file="a.pth")
    (tmp_path / "config.yaml").write_text("mode: joint\n")
    with pytest.raises(ConfigError, match=r"config.yaml:1: unknown key"):
        publish(tmp_path, out, file="a.pth")
    assert not out.exists()


def test_other_figures_than_the_checkpoints_are_refused(run: Path, tmp_path: Path):
    payload = load_network(run / "sr_fast_pretrained.pth", "sr")
    weights = {key: 0.9 * value for key, value in payload["weights"].items()}
    save_network(tmp_path / "a.pth", "sr", "espcn", payload["args"], weights, payload["meta"])
    with pytest.raises(ValueError, match=r"a.pth: its validation gave .* dB on Val3, its weights now give"):
        publish(tmp_path, tmp_path / "out", f"--run={run}", file="a.pth")
    assert not (tmp_path / "out").exists()
    other = draw_photographs(tmp_path / "Other", seed=5)
    assert publish(tmp_path, tmp_path / "out", f"--run={run}", f"--hr={other}", file="a.pth") == 0
    row = {"dataset": "Val3", "scale": 2.5, "psnr_y": float("nan")}
    with pytest.raises(ValueError, match=r"Val3"):
        check_agreement(tmp_path / "a.pth", {"psnr/Val3_x2.5": 30.0}, [row])


def test_times_of_resumed_runs_add_up_without_the_pause(tmp_path: Path):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    assert training_seconds(tmp_path) == 0
    (tmp_path / "tensorboard").mkdir()
    for number, times in enumerate([(100, 130, 160), (1000, 1004)]):
        with (tmp_path / "tensorboard" / f"events.out.tfevents.{number}").open("wb") as file:
            for step, time in enumerate(times):
                RecordWriter(file).write(Event(wall_time=time, step=step).SerializeToString())
    assert training_seconds(tmp_path) == 64


# ------------------------------------------------------------------------------------------------------------- the card


def configured(**keys) -> Stage2Config:
    config = Stage2Config()
    optim = {key: keys.pop(key) for key in list(keys) if key in OptimConfig.__dataclass_fields__}
    config = replace(config, optim_quality=replace(config.optim_quality, **optim))
    for key, value in keys.items():
        section, name = key.split("__")
        config = replace(config, **{section: replace(getattr(config, section), **{name: value})})
    return config


def test_where_lr_comes_from():
    train = ["/home/me/A", "/home/me/B"]
    assert data(configured(data__train=train), False).startswith("A and B, LR by antialiased bicubic")
    paired = configured(data__train=train[:1], data__lr_train=["/home/me/A_x2"])
    assert data(paired, False) == "A, LR read from A_x2"
    scales = configured(data__train=train, data__scales=[1.0, 4.0])
    assert data(scales, True).endswith("of the patch, factors from 1 to 4")
    assert data(scales, False) == data(configured(data__train=train), False)
    degradation = replace(Stage2Config().data.degradation, kind="realesrgan")
    assert "2107.10833" in data(configured(data__train=train, data__degradation=degradation), False)


LAST = "weights of the last step, no earlier one was chosen; validated on Set5 during training"


@pytest.mark.parametrize(
    ("step", "val", "reported", "text"),
    [
        (None, [], ["Set5"], "weights of the last step"),
        (None, ["/me/Set5"], ["Set14"], LAST),
        (500, ["/me/Set5"], ["Set14"], "weights of the best validation, after step 500, chosen by the PSNR on Set5"),
        (6000, ["/me/Set5"], ["Set14"], LAST),
    ],
)
def test_which_weights_are_published_and_what_chose_them(step: int | None, val: list, reported: list, text: str):
    config = configured(epochs=3, batch=8, data__val=val)
    meta = {"role": "sr_quality", "seed": 5} | ({"step": step} if step else {})
    assert checkpoint(config, meta, reported) == text
    both = checkpoint(config, meta, [*reported, "Set5"])
    assert both == text or ("reported below" in both.removeprefix(text) and both.endswith("Set5"))
    assert (both == text) == (not val)


def test_every_shipped_card_says_it():
    cards = sorted((ROOT / "weights").glob("*.md"))
    assert len(cards) >= 16
    for card in cards:
        (line,) = [line for line in card.read_text(encoding="utf-8").splitlines() if line.startswith("| checkpoint |")]
        assert ("last step" in line) != ("best validation" in line), card
        validated_on_set5 = "--data.val '[datasets/Set5" in card.read_text(encoding="utf-8")
        assert ("reported below" in line and "Set5" in line) == validated_on_set5, card


def test_protocol_in_words():
    meta = {"role": "sr_quality", "seed": 5}
    config = configured(epochs=3, batch=8, weight_decay=1e-4, clip_norm=0.0, sr_quality__init="/home/me/x2/last.pth")
    text = protocol(config, build_sr("edsr", 4, {"n_blocks": 1}), meta)
    assert "AdamW, weight decay 0.0001, 6,000 steps of 8 patches of 48 x 48 LR pixels" in text
    assert "clipped" not in text and "EMA" not in text and "best validation" not in text
    assert text.endswith("fp32, seed 5, started from `x2/last.pth` (what fits of it)")
    assert protocol(configured(sr_quality__weights="a.pth"), build_sr("espcn", 4), meta).endswith(
        "started from `a.pth`"
    )
    assert loss(configured(loss__pixel="charbonnier", loss__perceptual=0.1), "espcn", build_sr("espcn", 4)) == (
        "Charbonnier (epsilon 0.001) + 0.1 LPIPS"
    )
    assert loss(configured(), "lm_lte", build_sr("lm_lte", 4)) == "L1 at 2,304 random pixels per HR patch"
    assert loss(configured(loss__queries=0), "lm_lte", build_sr("lm_lte", 4)) == "L1"
    small = build_sr("difiisr_dwt", 4, {"channels": 8, "mult": "1", "swin_dim": 32})
    assert loss(configured(), small.spec["name"], small) == "phases and losses of `training/tasks/difiisr_dwt.py`"
    steps = OptimConfig(schedule="step", milestones=[2, 4], gamma=0.5)
    assert schedule(steps, 1000) == "times 0.5 after steps 2,000, 4,000"
    assert schedule(replace(steps, milestones=[]), 1000) == "throughout"


def test_command_of_every_kind_of_key():
    degradation = replace(Stage2Config().data.degradation, kind="realesrgan", pool=0)
    config = configured(
        lr_sr=1e-5, milestones=[2], data__train=["/a b/My set"], data__degradation=degradation, run__workers=9,
        run__out="/a/b", sr_quality__args={"n_blocks": 2, "n_feats": 4, "tail": "staged"},
        sr_quality__weights="/x/y/z.pth", sr_fast__weights="/x/y/fast.pth",
    )  # fmt: skip
    words = shlex.split(training_command(config, "sr_quality"))
    again = parse_config(Stage2Config, "", words[2:])
    assert again.sr_quality == replace(config.sr_quality, weights="y/z.pth")
    assert again.optim_quality == config.optim_quality and again.data.degradation == degradation
    assert again.data.train == ["datasets/My set"] and again.sr_fast.name == "bicubic"
    assert again.run == Stage2Config().run and again.sr_fast.weights is None


def test_any_scale_has_a_row_per_factor():
    network = AnySize()
    row = {"dataset": "Set5", "params": 84, "gmacs": 0.5, "border": 3, "images": 5, "lr": "bicubic", "ssim_y": 0.9}
    rows = [row | {"scale": 2, "psnr_y": 30.0}, row | {"scale": 2.5, "psnr_y": 29.0, "gmacs": 0.25}]
    config = replace(configured(data__train=["/a/T91"]), scale=4)
    card = card_text("any", network, rows, {"role": "sr_fast", "seed": 0}, config, {}, 0.0)
    assert card.startswith("# any: any_size, any scale\n") and "0.50 at x2, 0.25 at x2.5 GMAC" in card
    assert "| Set5 x2 | 30.00 dB / 0.9000: " in card and "| Set5 x2.5 | 29.00 dB" in card
    assert "--scale '[2, 2.5]'" in card and "| training |" not in card


def test_words():
    made = {"gpus": [], "cpu": "Chip", "threads": 1, "cpu_cores": 4, "versions": {"torch": "2"}, "git": None}
    made |= {"date": "2026-01-02T03:04:05+00:00"}
    assert machine(made, 90) == "1.5 min, validations included, Chip, 1 of 4 cores, PyTorch 2, 2026-01-02"
    git = {"commit": "0123456789abcdef", "dirty": True}
    assert (
        machine(made | {"gpus": ["Card"], "git": git}, 0)
        == "Card, PyTorch 2, 2026-01-02, commit 0123456789 with changes"
    )
    assert machine({}, 0) == ""
    assert [short(path) for path in ("a.pth", "/a.pth", "/a/b/c.pth")] == ["a.pth", "a.pth", "b/c.pth"]
    assert flow({"a": 1, "b": [True, None, 0.5, "x"]}) == "{a: 1, b: [true, null, 0.5, x]}"
