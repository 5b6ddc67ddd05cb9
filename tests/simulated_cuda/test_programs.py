"""Stage 1, evaluate.py and inference.py from end to end on the simulated device."""

from __future__ import annotations

import pytest

import evaluate
import inference
from tests.drawn import draw_detection_set
from tests.simulated_cuda.systems import tiny_system
from utils.checkpoint import save_network


@pytest.fixture
def parts(tmp_path):
    """Files of a system and its parts, by kind."""
    system, names = tiny_system(), {}
    parts = {"system": system, "detector": system.detector}
    parts |= {"fast": system.front.sr_fast, "quality": system.front.sr_quality}
    for name, part in parts.items():
        kind = name if name in ("system", "detector") else "sr"
        names[name] = str(tmp_path / f"{name}.pth")
        save_network(names[name], kind, part.spec["name"], part.spec["args"], part.state_dict(), {"seed": 0})
    return names


@pytest.mark.slow
def test_evaluate(tmp_path, cuda, parts):
    data = draw_detection_set(tmp_path / "set", images=3)
    sliced = f"{{sahi: {{weights: {parts['detector']}, rows: 2, columns: 2}}}}"
    arguments = [
        f"--run.out={tmp_path / 'evaluate'}", "--run.device=cuda", "--run.workers=0", "--run.precision=fp16",
        f"--data.yaml={data}", "--data.imgsz=64", "--data.scale=2", f"--system={parts['system']}",
        f"--detector={parts['detector']}", f"--sr_fast={parts['fast']}", f"--sr_quality={parts['quality']}",
        "--budgets=[0.25]", "--batch=2", "--timing_runs=2", "--overlays=1", f"--sliced={sliced}",
    ]  # fmt: skip
    assert evaluate.main(arguments) == 0
    assert not cuda.broken


@pytest.mark.parametrize("policy", ["budget=0.25", pytest.param("learned", marks=pytest.mark.slow)])
def test_inference(tmp_path, cuda, parts, policy):
    draw_detection_set(tmp_path / "set", images=3)
    source = tmp_path / "set" / "images" / "val"
    arguments = ["--weights", parts["system"], "--source", str(source), "--device=cuda", f"--policy={policy}"]
    arguments += ["--save_txt=true", "--save_mask=true", "--save_sr=true", "--half=true"]
    assert inference.main([*arguments, "--out", str(tmp_path / "inference")]) == 0
    assert not cuda.broken
