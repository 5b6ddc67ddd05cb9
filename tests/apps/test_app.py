"""The app without a browser: what is shown of an image, the sliders, and what a wrong start is told."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import app
from apps import browser_app, serving
from apps.one_image import Limits, detect, parts_of, policy_of, super_resolve, timed_alone
from inference import main as infer
from prediction.api import ConditionalYOLO
from prediction.stage_times import StageTimes
from prediction.super_resolver import SuperResolver
from tests.apps.running import Client, file_data, served
from tests.extras import needs_extra, needs_generative
from tests.prediction.running import noise
from tools.latency import main as measure
from utils.errors import UserError
from utils.extras import MissingExtra
from utils.overlay import draw_boxes

LIMITS = Limits(pixels=10_000, upload_mb=1)


@pytest.fixture(scope="module")
def model(weights) -> ConditionalYOLO:
    return ConditionalYOLO(weights, device="cpu")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(noise(40, 48, 3)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_boxes_are_those_of_inference(model, weights, image, tmp_path: Path):
    shown = detect(model, image, "budget=0.25", 0.25, LIMITS, tmp_path / "shown")
    out = ["--out", str(tmp_path / "run"), "--save_images", "false", "--save_json", "true", "--policy", "budget=0.25"]
    assert infer(["--weights", str(weights), "--source", str(image), "--device", "cpu", *out]) == 0
    (right,) = json.loads((tmp_path / "run" / "predictions.json").read_text())
    found = json.loads(shown.boxes.read_text())
    assert found["detections"] and found == {key: value for key, value in right.items() if key != "file"}
    parts = ["reading", "masker", "SR_Fast", "SR_Quality", "detection", "pictures"]
    assert [*shown.parts] == parts and min(shown.parts.values()) > 0
    assert all(part in browser_app.COLOURS for part in parts)
    shapes = {name: np.asarray(Image.open(path)).shape[:2] for name, path in shown.pictures.items()}
    assert shapes == {"LR": (40, 48), "mask": (400, 480), "SR": (160, 192), "boxes": (800, 960)}
    assert len({path.parent for path in shown.pictures.values()}) == 4
    boxes = [[*(20 * side for side in it["box"]), it["score"], it["class"]] for it in found["detections"]]
    large = np.asarray(Image.open(shown.pictures["SR"])).repeat(5, axis=0).repeat(5, axis=1)
    drawn = np.asarray(Image.open(shown.pictures["boxes"]))
    assert (drawn != draw_boxes(large, np.array(boxes), ("cat", "dog"))).any(axis=-1).mean() < 0.005


def test_what_is_no_image_is_refused_without_its_folder(model, image, tmp_path: Path):
    wrong = {"a.mp4": image.read_bytes(), "a.txt": b"text", "broken.png": image.read_bytes()[:200]}
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (101, 100)).save(tmp_path / "large.png")
    for name in (*wrong, "large.png"):
        for call in (
            lambda path: detect(model, path, None, 0.25, LIMITS, tmp_path / "shown"),
            lambda path: super_resolve(SuperResolver("shipped", 2, "cpu"), path, LIMITS, tmp_path / "shown"),
        ):
            with pytest.raises(UserError, match=name) as error:
                call(tmp_path / name)
            assert str(tmp_path) not in str(error.value)
    assert not (tmp_path / "shown").exists()


def test_parts_of_sr_add_up(model, image, tmp_path: Path, monkeypatch):
    clock = iter(range(1_000_000))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    times = StageTimes(model.predictor.device)
    with times.of_calls(timed_alone(model)):
        next(iter(model.predict(image, "budget=0.25", stream=True, times=times)))
    seconds, parts = times.seconds, parts_of(times)
    assert parts["masker"] == parts["SR_Fast"] == 1000  # one call each, a tick of this clock
    assert "SR" not in parts and parts["SR_Quality"] == 1e3 * seconds["SR"]
    plain = StageTimes(model.predictor.device)
    next(iter(model.predict(image, "budget=0.25", stream=True, times=plain)))
    assert seconds["masker"] + seconds["SR_Fast"] + seconds["SR"] == plain.seconds["SR"] + 4  # two more looks each
    assert [*plain.seconds] == [*parts_of(plain)] == ["reading", "SR", "detection"]  # the hooks are gone again
    everywhere = detect(model, image, "all_quality", 0.25, LIMITS, tmp_path / "shown").parts
    assert [*everywhere] == ["reading", "SR", "detection", "pictures"]


def test_policies_of_the_slider(model):
    assert [policy_of(model, share) for share in (0, 0.25, 1)] == ["all_fast", "budget=0.25", "all_quality"]
    assert all(model.checked_policy(policy_of(model, share)) for share in (0, 0.05, 0.95, 1))


@needs_extra("app")
def test_a_profile_makes_it_a_slider_of_milliseconds(model, tmp_path: Path):
    import gradio as gr

    from deployment.latency_profile import Curve, LatencyProfile

    curve = Curve([0, 6400], [0, 10])
    fast = Curve([0, 6400], [0, 4])
    profile = LatencyProfile(
        {}, "", 4, 8, 0, False, fast, curve, Curve([0, 100], [0, 10]), Curve([0, 102_400], [0, 20])
    )
    setup = browser_app.Setup(model, profile, 4, "cpu", False, LIMITS, tmp_path)
    with gr.Blocks(analytics_enabled=False):
        slider, policy = browser_app.budget_slider(gr, setup, model)
    assert (slider.minimum, slider.maximum, slider.value) == (24, 30, 27) and policy(25) == "latency_ms=25"


@pytest.mark.slow
@needs_extra("app")
def test_a_measured_profile_serves(weights, image, tmp_path: Path, monkeypatch):
    profile = tmp_path / "latency.json"
    options = ["--imgsz", "160", "--batch", "1", "--rounds", "1", "--device", "cpu", "--out", str(profile)]
    assert measure(["--weights", str(weights), *options]) == 0
    seen: list = []
    monkeypatch.setattr(serving, "launch", lambda page, *_: seen.append(json.dumps(page.get_config_file())))
    app.main(["--port", "0", "--device", "cpu", "--weights", str(weights), "--profile", str(profile)], seen.append)
    assert "milliseconds of the whole call" in seen[0]
    model = ConditionalYOLO(weights, device="cpu", profile=profile)
    kept = [
        json.loads(detect(model, image, f"latency_ms={ms}", 0.25, LIMITS, tmp_path / "shown").boxes.read_text())
        for ms in (0.01, 100_000)
    ]
    assert [it["kept_share"] for it in kept] == [0, 1]


def test_the_time_bar():
    bar = browser_app.time_bar({"SR": 10.0, "detection": 30.0})
    assert "flex: 10.00 1 0" in bar and "flex: 30.00 1 0" in bar and "detection 30 ms" in bar


def test_the_one_step_tab_says_in_one_line_what_is_missing(monkeypatch):
    def missing(module: str, extra: str, what: str):
        raise MissingExtra(f"{what} needs {module}: pip install -r requirements-{extra}.txt")

    monkeypatch.setattr(browser_app, "require", missing)
    line = browser_app.what_one_step_lacks()
    assert "requirements-generative.txt" in line and "\n" not in line
    monkeypatch.setattr(browser_app, "require", lambda *_: None)
    assert browser_app.what_one_step_lacks() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profile", "p.json"], "--profile belongs to --weights"),
        (["--detector", "d.pt", "--profile", "p.json"], "--profile belongs to --weights"),
        (["--weights", "w.pth", "--sr", "shipped"], "--sr stands before --detector"),
        (["--detector", "missing.pt"], "missing.pt"),
        (["--port", "99999"], "--port 99999"),
    ],
)
@needs_extra("app")
def test_a_wrong_start_is_one_line(options: list[str], message: str):
    with pytest.raises(UserError, match=message):
        app.main(options)


def test_without_gradio_one_line_says_what_to_install(monkeypatch):
    def missing(module: str, extra: str, what: str):
        raise MissingExtra(f"{what} needs {module}: pip install -r requirements-{extra}.txt")

    monkeypatch.setattr(serving, "require", missing)
    with pytest.raises(MissingExtra, match=r"app.py needs gradio: pip install -r requirements-app.txt"):
        app.main(["--port", "0"])


@pytest.mark.parametrize(
    "options",
    [
        ["--scale", "0"],
        ["--scale", "-3"],
        ["--scale", "31"],
        ["--max-pixels", "0"],
        ["--max-upload-mb", "0"],
        ["--weights", "a", "--detector", "b"],
    ],
)
def test_wrong_options(options: list[str], capsys):
    with pytest.raises(SystemExit) as end:
        app.main(options)
    assert end.value.code == 2 and options[0] in capsys.readouterr().err


@needs_extra("app")
def test_without_a_detector_there_is_sr_alone(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(app, "DEMO", tmp_path / "nothing.pth")
    seen: list = []
    monkeypatch.setattr(serving, "launch", lambda page, *_: seen.append(json.dumps(page.get_config_file())))
    app.main(["--port", "0", "--device", "cpu"], lambda address: seen.append(address))
    assert "No detector was given" in seen[0] and "edsr_16x64_x4.safetensors" in seen[0]
    assert seen[1].startswith("http://127.0.0.1:")


@pytest.mark.slow
@needs_generative
def test_one_step_diffusion(image, tmp_path: Path):
    resolver = SuperResolver(browser_app.FOLDER / f"{browser_app.ONE_STEP}.safetensors", None, "cpu")
    shown = super_resolve(resolver, image, LIMITS, tmp_path / "shown")
    assert shown.line == "48x40 pixels to 192x160" and Image.open(shown.pictures["SR"]).size == (192, 160)


@needs_extra("app")
def test_what_was_shown_does_not_pile_up(weights, image, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with served("--weights", str(weights)) as address:
        client = Client(address)
        (path,) = json.loads(client.upload("a.png", image.read_bytes())[1])
        for amount in (0.25, 0.5, 0.75):
            _, _, session = client.join(client.detection(), [file_data(path), amount, 0.25])
            said = client.result(session)
            assert "objects in 48x40 pixels, SR_Quality on" in said
            (url,) = {url for url in re.findall(r'"path": ?"([^"]+boxes.json)"', said)}
            assert client.request("GET", f"/gradio_api/file={url}")[0] == 200
        (shown,) = tmp_path.glob("conditional-sr-*/shown")
        assert sorted(path.name for path in shown.rglob("*.*")) == [
            "LR.png", "SR.png", "boxes.json", "boxes.png", "mask.png"
        ]  # fmt: skip


@needs_extra("app")
def test_the_demos_system_is_taken_where_it_is_there(monkeypatch, weights):
    monkeypatch.setattr(app, "DEMO", weights)
    seen: list = []
    monkeypatch.setattr(serving, "launch", lambda page, *_: seen.append(json.dumps(page.get_config_file())))
    app.main(["--port", "0", "--device", "cpu"], lambda address: None)
    assert "detection-boxes" in seen[0] and "No detector" not in seen[0]
