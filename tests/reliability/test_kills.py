"""Killed or stopped at random instants and resumed, a run ends as an unbroken one."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.drawn import draw_detection_set, draw_photographs
from tests.reliability.tiny_run import interrupted_run, outcome, same, whole_run
from tests.test_resume import RECIPE, final_weights, finish, logged, stage2_arguments, stage3_arguments, start

STAGE3 = ["conditional_sr_yolo_jointly_tuned.pth"]
STAGES = {
    "stage 2": (stage2_arguments, [], ["sr_fast_pretrained.pth", "sr_quality_pretrained.pth"]),
    "stage 3": (stage3_arguments, [], STAGE3),
    "stage 3, recipe": (stage3_arguments, RECIPE, STAGE3),
}


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_the_training_loop(tmp_path: Path, count, record, name: str):
    tried, number, chance = count(3, 50), getattr(signal, name), random.Random(name)
    first, metrics, seconds = whole_run(tmp_path / "whole")
    good, hits, codes = 0, 0, set()
    every = 1 if name == "SIGKILL" else 100  # a request to stop saves by itself
    index = 0
    while index < tried or (
        not hits and index < 20
    ):  # a first run is slower than later ones: signals may come too late
        statuses = interrupted_run(
            tmp_path / str(index), chance, seconds if hits else seconds / (1 + index), number, every
        )
        hits, codes = hits + len(statuses), codes | set(statuses)
        good += same((first, metrics), outcome(tmp_path / str(index)))
        index += 1
    tried = index
    allowed = {-9} if name == "SIGKILL" else {130}
    note = f"{hits} signals at random instants, exit status {', '.join(map(str, sorted(codes)))}"
    record("Kills and signals", f"training loop, {name}: bit-identical end", good, tried, note)
    assert hits and codes <= allowed


def interrupt(process, chance: random.Random, seconds: float) -> bool:
    """SIGKILL at a random instant of a run that takes so long; False if it ended before."""
    deadline = time.monotonic() + chance.random() * seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    if process.poll() is not None:
        return False
    process.kill()
    process.wait()
    return True


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage(tmp_path: Path, count, record, stage: str):
    tried, chance = count(0, 50), random.Random(stage)
    arguments, options, names = STAGES[stage]
    data = draw_photographs(tmp_path / "p") if stage == "stage 2" else draw_detection_set(tmp_path / "s", images=10)
    began = time.monotonic()
    finish(start([*arguments(data, tmp_path / "whole"), *options], resume=False))
    seconds, good, kills = time.monotonic() - began, 0, 0
    for index in range(tried):
        out = tmp_path / str(index)
        for life in range(2):
            kills += interrupt(start([*arguments(data, out), *options], resume=life > 0), chance, seconds)
        finish(start([*arguments(data, out), *options], resume=True))
        pairs = zip(final_weights(tmp_path / "whole", names), final_weights(out, names), strict=True)
        equal = all(a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in pairs)
        good += equal and logged(tmp_path / "whole") == logged(out)
    record("Kills and signals", f"{stage}, SIGKILL: bit-identical end", good, tried, f"{kills} kills")


@pytest.mark.slow
def test_stage_1(tmp_path: Path, count, record):
    """Ultralytics keeps 16-bit averages and no state of its sampler: the resumed run differs, by how much is shown."""
    tried, chance, data = count(0, 10), random.Random(1), draw_detection_set(tmp_path / "set", images=10)

    def arguments(out: Path) -> list[str]:
        return [
            "stage1_pretrain_yolo.py", f"--run.out={out}", "--run.device=cpu", "--run.threads=1", "--run.workers=0",
            f"--data.yaml={data}", "--data.imgsz=64", "--detector.model=yolov5n.yaml", "--epochs=4", "--batch=4",
            "--warmup_epochs=0", "--augment.close_mosaic=0",
        ]  # fmt: skip

    name, began = ["yolo_pretrained_hr.pth"], time.monotonic()
    finish(start(arguments(tmp_path / "whole"), resume=False))
    (whole,) = final_weights(tmp_path / "whole", name)
    seconds, good, kills, deviations = time.monotonic() - began, 0, 0, []
    for index in range(tried):
        out = tmp_path / str(index)
        for life in range(3):
            kills += interrupt(start(arguments(out), resume=life > 0), chance, seconds)
        finish(start(arguments(out), resume=True))
        (again,) = final_weights(out, name)
        steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        good += again.keys() == whole.keys() and steps == [1, 2, 3, 4]
        deviations.append(max((x.float() - again[k].float()).abs().max().item() for k, x in whole.items()))
    how_far = f"largest difference of a weight {min(deviations):.3g} to {max(deviations):.3g}: not bit-identical"
    note = f"{kills} kills at random instants; {how_far}"
    record("Kills and signals", "stage 1, SIGKILL: resumed to its end, every epoch logged once", good, tried, note)
