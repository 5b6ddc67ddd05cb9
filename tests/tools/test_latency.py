"""The latency profile of a system: measured from a checkpoint or a YAML, printed, kept, never overwritten unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployment.latency_profile import load_profile
from tools import latency

SYSTEM = Path(__file__).parents[1] / "fixtures/old/stage3/conditional/conditional_sr_yolo_jointly_tuned.pth"


def test_a_profile_of_a_checkpoint(tmp_path: Path, capsys):
    out = tmp_path / "latency.json"
    argv = ["--weights", str(SYSTEM), "--imgsz", "64", "96", "--batch", "2", "--rounds", "1", "--device", "cpu"]
    assert latency.main([*argv, "--out", str(out)]) == 0
    profile = load_profile(out)
    assert (profile.scale, profile.patch, profile.halo) == (2, 4, 2) and profile.environment["dtype"] == "float32"
    for curve in (profile.none, profile.full, profile.tiles, profile.detector):
        assert curve.work == sorted(curve.work) and len(curve.work) == len(curve.ms) and min(curve.ms) >= 0
    assert profile.none.work[-1] >= 2 * 32 * 48, "both images of the largest batch"
    assert profile.total_ms(32, 48, 1, 0) > profile.sr_ms(32, 48, 1, 0) > 0
    printed = capsys.readouterr().out
    assert "LR 48x32, batch 1" in printed and printed.count("kept share") == 5
    with pytest.raises(SystemExit):
        latency.main([*argv, "--out", str(out)])
    assert "choose another name or add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--imgsz", "16"], "at least 32"),
        (["--batch", "0"], "at least 1"),
        (["--halo", "-1"], "invalid halo value"),
    ],
)
def test_options_that_cannot_be_are_refused(options: list[str], message: str, tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        latency.main(["--weights", str(SYSTEM), *options, "--out", str(tmp_path / "latency.json")])
    assert message in capsys.readouterr().err and not any(tmp_path.iterdir())
