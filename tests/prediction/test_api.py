"""prediction/api.py: boxes, masks and SR images from Python, as users of Ultralytics expect them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.images import read_rgb
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from prediction.api import ConditionalYOLO
from prediction.results import ConditionalResults, Results
from tests.conftest import ROOT
from tests.prediction.running import NAMES, digests, draw_video, entries, infer, noise
from utils.checkpoint import save_network
from utils.convert import to_image, to_tensor
from utils.errors import UserError


@pytest.fixture(scope="module")
def model(weights) -> ConditionalYOLO:
    return ConditionalYOLO(weights, device="cpu")


@pytest.fixture(scope="module")
def plain(plain_weights) -> ConditionalYOLO:
    return ConditionalYOLO(plain_weights, device="cpu")


@pytest.fixture
def sr_weights(tmp_path) -> Path:
    network = build_sr("espcn", 2, {"n_feats": 8})
    with torch.no_grad():  # as built it is symmetric interpolation
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_network(tmp_path / "sr.pth", "sr", "espcn", network.spec["args"], network.state_dict(), {})
    return tmp_path / "sr.pth"


def equal(a: ConditionalResults, b: ConditionalResults) -> None:
    torch.testing.assert_close(a.boxes.data, b.boxes.data, rtol=0, atol=0)
    np.testing.assert_array_equal(a.patch_mask, b.patch_mask)
    np.testing.assert_array_equal(a.sr, b.sr)
    assert a.kept_share == b.kept_share


# ------------------------------------------------------------------------------------------------- one image, all forms


def test_all_forms_of_an_image_give_the_same(model, good):
    path = good / "odd.png"
    rgb = read_rgb(path, 10**6)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    (expected,) = model.predict(path, conf=0.1)
    assert len(expected) > 3 and expected.path == str(path)
    forms = [
        (str(path), {}),
        ([path], {}),
        (Image.open(path), {}),
        (rgb, {"channels": "rgb"}),
        (rgb[..., ::-1], {"channels": "bgr"}),
        (tensor, {}),
        (tensor[None].float() / 255, {}),
        (iter([tensor]), {}),
    ]
    for source, channels in forms:
        (found,) = model.predict(source, conf=0.1, **channels)
        equal(found, expected)
    (swapped,) = model.predict(rgb, conf=0.1, channels="bgr")
    assert not np.array_equal(swapped.sr, expected.sr)
    (original,) = model.predict(expected.orig_img, conf=0.1, channels="bgr")
    equal(original, expected)


@given(st.integers(1, 34), st.integers(1, 34), st.sampled_from(["learned", "budget=0.25", "all_quality", "edge=0.5"]))
@settings(max_examples=15)
def test_everything_is_in_pixels_of_the_image(model, height: int, width: int, policy: str):
    image = noise(height, width, 3, seed=height * width)
    kept = image.copy()
    (found,) = model.predict(image, policy, conf=0.05, channels="rgb")
    np.testing.assert_array_equal(image, kept)
    assert found.orig_shape == (height, width) and found.orig_img.flags.c_contiguous
    np.testing.assert_array_equal(found.orig_img, image[..., ::-1])
    x1, y1, x2, y2 = found.boxes.xyxy.unbind(1)
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= width) & (y1 >= 0) & (y1 < y2) & (y2 <= height)).all()
    assert found.patch == 4 and found.patch_mask.shape == (-(-height // 4), -(-width // 4))
    assert found.patch_mask.dtype == bool and found.kept_share == pytest.approx(found.patch_mask.mean())
    if "=" in policy:
        assert found.patch_mask.sum() == round(float(policy.partition("=")[2]) * found.patch_mask.size)
    assert found.sr.shape == (4 * height, 4 * width, 3) and found.sr.dtype == np.uint8
    (sr,) = model.upscale(image, policy, channels="rgb")
    assert sr.shape == found.sr.shape and sr.dtype == np.uint8


def test_images_do_not_depend_on_each_other(model):
    images = [noise(h, w, 3, seed=h) for h, w in ((17, 23), (20, 24), (24, 17), (9, 9), (24, 24), (1, 1))]
    single = [model.predict(image, conf=0.1, channels="rgb")[0] for image in images]
    for batch in (2, 4):
        for a, b in zip(single, model.predict(images, conf=0.1, batch=batch, channels="rgb"), strict=True):
            torch.testing.assert_close(a.boxes.data, b.boxes.data, rtol=0, atol=1e-2)
            np.testing.assert_array_equal(a.patch_mask, b.patch_mask)
            assert np.abs(a.sr.astype(int) - b.sr).max() <= 1
    batch = torch.stack([torch.from_numpy(images[0]).permute(2, 0, 1)] * 2)
    for found in model.predict(batch, conf=0.1):
        equal(found, single[0])


def test_the_same_boxes_as_inference_py(model, weights, good, tmp_path):
    before = digests(good)
    assert infer(weights, good, tmp_path / "out", "--save-json", "--policy", "budget=0.25", "--save-sr") == 0
    written = entries(tmp_path / "out")
    results = model.predict(good)
    assert [result.path for result in results] == list(written) and digests(good) == before
    for result, entry in zip(results, written.values(), strict=True):
        assert [d["box"] for d in entry["detections"]] == [
            pytest.approx(b, abs=1e-3) for b in result.boxes.xyxy.tolist()
        ]
        assert [d["class"] for d in entry["detections"]] == result.boxes.cls.int().tolist()
        assert entry["kept_share"] == pytest.approx(result.kept_share, abs=1e-6)
        name = Path(result.path).relative_to(good).with_suffix(".png")
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "sr" / name)), result.sr)
    assert sum(map(len, results)) > 5


# ------------------------------------------------------------------------------------------------- Ultralytics' Results


def test_results_do_what_ultralytics_results_do(model, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (result,) = model(good / "odd.png", conf=0.1)
    assert isinstance(result, Results) and result.masks is None and result.names == dict(enumerate(NAMES))
    assert result.boxes.xyxy.shape == (len(result), 4) and result.boxes.xywhn.max() <= 1 and result.boxes.id is None
    assert set(result.speed) == {"preprocess", "inference", "postprocess"} and all(
        v >= 0 for v in result.speed.values()
    )
    drawn = result.plot()
    assert drawn.shape == (17, 23, 3) and not np.array_equal(drawn, result.orig_img)
    assert Image.open(result.save("drawn.png")).size == (23, 17)
    result.save_txt("labels.txt", save_conf=True)
    lines = Path("labels.txt").read_text().splitlines()
    assert len(lines) == len(result) and all(len(line.split()) == 6 for line in lines)
    assert result.to_df().shape[0] == len(json.loads(result.to_json())) == len(result)
    assert set(result.to_df()["name"]) <= set(NAMES)
    assert result.verbose().endswith(", ") and "boxes" in str(result)
    result.save_crop(tmp_path / "crops")
    assert any((tmp_path / "crops").rglob("*.jpg"))


def test_what_the_front_end_made_stays_with_copies(model, good):
    for asked_before in (True, False):
        (result,) = model.predict(good / "odd.png", conf=0.1, stream=True)
        expected = result.sr if asked_before else None
        for copied in (result.cpu(), result.numpy(), result[:2], result.to(torch.float64), result.new()):
            assert isinstance(copied, ConditionalResults) and copied.path == result.path
            np.testing.assert_array_equal(copied.sr, result.sr if expected is None else expected)
            np.testing.assert_array_equal(copied.patch_mask, result.patch_mask)
        assert len(result[:2]) == 2 and len(result.new()) == 0 and len(result) > 2
        assert isinstance(result.numpy().boxes.xyxy, np.ndarray) and isinstance(result.boxes.xyxy, torch.Tensor)


def test_what_supervision_reads(model, good):
    """`sv.Detections.from_ultralytics` takes these attributes."""
    (result,) = model.predict(good / "odd.png", conf=0.1)
    assert result.obb is None and not result.masks and result.boxes.id is None
    assert result.boxes.xyxy.cpu().numpy().shape == (len(result), 4)
    assert [result.names[i] for i in result.boxes.cls.cpu().numpy().astype(int)]
    supervision = pytest.importorskip("supervision")
    assert len(supervision.Detections.from_ultralytics(result)) == len(result)


def test_an_image_without_objects(model, good):
    (result,) = model.predict(good / "odd.png", conf=1.0)
    assert len(result) == 0 and result.boxes.xyxy.shape == (0, 4) and result.to_df().is_empty()
    assert "no detections" in result.verbose() and np.array_equal(result.plot(), result.orig_img)


# ------------------------------------------------------------------------------------------------------ streams, videos


def test_streams_are_made_as_they_are_asked_for(model):
    asked = []

    def camera():
        for number in range(5):
            asked.append(number)
            yield noise(8, 8, 3, seed=number)

    stream = model.predict(camera(), stream=True, channels="bgr")
    assert asked == []
    next(stream)
    assert len(asked) <= 2


def test_videos(model, tmp_path):
    draw_video(tmp_path / "clip.mp4", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        streamed = list(model.predict(tmp_path / "clip.mp4", stream=True, batch=2))
    assert [result.frame_index for result in streamed] == [1, 2, 3]
    assert {result.path for result in streamed} == {str(tmp_path / "clip.mp4")}
    with pytest.warns(UserWarning, match="stream=True"):
        listed = model.predict(tmp_path / "clip.mp4")
    for a, b in zip(streamed, listed, strict=True):
        # Batches of another size may round differently.
        torch.testing.assert_close(a.boxes.data, b.boxes.data, rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(a.patch_mask, b.patch_mask)
        np.testing.assert_allclose(a.sr.astype(int), b.sr.astype(int), atol=1)


def test_unreadable_images(model, good):
    (good / "a.png").write_text("no image")
    with pytest.raises(UserError, match=r"a\.png: not an image"):
        model.predict(good)
    with pytest.warns(UserWarning, match="left out"):
        assert len(model.predict(good, on_bad_image="skip")) == 5
    with pytest.warns(UserWarning, match="left out"):
        assert len(model.upscale(good, on_bad_image="skip")) == 5
    with pytest.raises(UserError, match="more than the limit of 9;"):
        model.predict(good / "odd.png", max_pixels=9)


# ------------------------------------------------------------------------------------------------------ policies, names


def test_policies(model, plain, good):
    assert {"learned", "threshold=T", "budget=R", "all_fast", "random=R"} <= set(model.policies())
    assert "latency_ms=T" not in model.policies() and plain.policies() == {}
    assert model.names == {0: "cat", 1: "dog"} and (model.scale, plain.scale) == (4, 3)
    image = noise(32, 32, 3)
    for policy, share in ((None, 0.25), ("budget=0.5", 0.5), ("all_fast", 0), ("all_quality", 1)):
        (result,) = model.predict(image, policy, channels="rgb")
        assert result.kept_share == result.patch_mask.mean() == share
    (result,) = plain.predict(image, channels="rgb")
    assert result.patch_mask is result.patch is result.kept_share is None and result.sr.shape == (96, 96, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "clever"}, "valid forms"),
        ({"policy": "budget=2"}, "valid forms"),
        ({"policy": "latency_ms=40"}, "needs a latency profile"),
        ({"policy": 0.25}, "policy is 0.25; give it as text, such as 'budget=0.25'"),
        ({"conf": "0.3"}, "conf is '0.3'; give a number"),
        ({"conf": float("nan")}, "conf is nan; give a number"),
        ({"max_det": 0.5}, "max_det is 0.5; give a whole number"),
        ({"batch": 2.5}, "batch is 2.5; give a whole number"),
        ({"conf": 1.2}, "conf is 1.2"),
        ({"iou": -1}, "iou is -1"),
        ({"max_det": 0}, "max_det is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"on_bad_image": "no"}, "on_bad_image is 'no'"),
    ],
)
def test_options_are_checked_at_once_also_of_streams(model, good, options, message):
    with pytest.raises(UserError, match=message):
        model.predict(good, stream=True, **options)


def test_without_a_masker_there_is_no_policy(plain, plain_weights, good):
    for call in (plain.predict, plain.upscale):
        with pytest.raises(UserError, match="no masker"):
            call(good, policy="budget=0.5")
    for options in ({"halo": 1}, {"profile": "p.json"}):
        with pytest.raises(UserError, match="no masker"):
            ConditionalYOLO(plain_weights, "cpu", **options)


def test_constructor_refusals(weights, tmp_path, sr_weights):
    detector = tmp_path / "detector.pth"
    save_network(detector, "detector", "yolo", {}, {}, {})
    for arguments, message in (
        ((tmp_path / "gone.pth",), "does not exist"),
        ((detector,), "a detector alone; give it as detector"),
        ((weights, "cuda:1"), "device is 'cuda:1'"),
        (("shipped", "cpu", False, 7), "none are shipped for x7"),
        ((weights, "cpu", False, 2), "for x4, not x2"),
        ((weights, "cpu", False, None, "exactly"), "halo is 'exactly'; give LR pixels"),
        ((weights, "cpu", False, None, 1.5), "halo is 1.5; give LR pixels"),
        ((sr_weights, "cpu", False, 3), "for x2, not x3"),
        ((sr_weights, "cpu", False, None, 1), "leave out halo"),
    ):
        options = dict(zip(("device", "half", "scale", "halo"), arguments[1:], strict=False))
        with pytest.raises(UserError, match=message):
            ConditionalYOLO(arguments[0], **options)
    with pytest.raises(UserError, match="memory_mb is 0; give 16 or more"):
        ConditionalYOLO(weights, "cpu", memory_mb=0)


# ---------------------------------------------------------------------------------------------------------- upscale


def test_upscale_with_a_front_end(model, plain, good):
    image = read_rgb(good / "odd.png", 10**6)
    (sr,) = model.upscale(good / "odd.png", "all_quality")
    front = model.predictor.system.front
    with torch.no_grad():
        expected = front.sr_quality(to_tensor(image, "cpu")).clamp(0, 1)
    assert isinstance(front, ConditionalSR) and np.abs(to_image(expected).astype(int) - sr).max() <= 1
    assert not np.array_equal(sr, model.upscale(good / "odd.png", "all_fast")[0])
    assert plain.upscale(good / "odd.png")[0].shape == (51, 69, 3)
    assert [x.shape for x in model.upscale([image, image[:3]], channels="rgb", stream=True)] == [
        (68, 92, 3),
        (12, 92, 3),
    ]
    with pytest.raises(UserError, match="for x4, not x2"):
        model.upscale(image, scale=2, channels="rgb")


def test_upscale_with_an_sr_network_alone(sr_weights, good):
    alone = ConditionalYOLO(sr_weights, "cpu")
    image = read_rgb(good / "odd.png", 10**6)
    (sr,) = alone.upscale(image[..., ::-1], channels="bgr")
    with torch.no_grad():
        expected = to_image(alone._resolver.network(to_tensor(image, "cpu")))
    np.testing.assert_array_equal(sr, expected)
    assert alone.scale == 2 and alone.policies() == {} and not alone.conditional
    for use in (lambda: alone.predict(image, channels="rgb"), lambda: alone.names):
        with pytest.raises(UserError, match=r"no detector; use upscale \(inference.py --sr-only\)"):
            use()
    with pytest.raises(UserError, match="no masker"):
        alone.upscale(good, policy="all_fast")
    with pytest.raises(UserError, match="for x2, not x3"):
        alone.upscale(good, scale=3)


def test_shipped_weights_and_any_scale(good, tmp_path):
    assert ConditionalYOLO("shipped", "cpu", scale=2).upscale(good / "dot.png")[0].shape == (2, 2, 3)
    assert ConditionalYOLO("shipped", "cpu").scale == 4
    network = build_sr("lm_liif", 3.0, {"n_blocks": 1, "n_feats": 8})
    save_network(tmp_path / "any.pth", "sr", "lm_liif", network.spec["args"], network.state_dict(), {})
    free = ConditionalYOLO(tmp_path / "any.pth", "cpu")
    assert [free.upscale(good / "odd.png", scale=s)[0].shape[:2] for s in (None, 2.5, 1)] == [
        (51, 69),
        (42, 58),
        (17, 23),
    ]


def test_a_detector_alone_is_no_system():
    with pytest.raises(UserError, match="a detector alone; give it as detector"):
        ConditionalYOLO(ROOT / "tests/fixtures/old/stage1/yolo_pretrained_hr.pth", device="cpu")


def test_a_detector_of_others_given_as_weights_is_called_one(tmp_path):
    torch.save(YoloDetector("yolov8n.yaml", ("a", "b")).net.state_dict(), tmp_path / "yolo.pt")
    with pytest.raises(UserError, match=r"yolo.pt: a detector alone; give it as detector \(--detector\)"):
        ConditionalYOLO(tmp_path / "yolo.pt", device="cpu")
    torch.save({"a": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="no architecture that can be read here"):
        ConditionalYOLO(tmp_path / "other.pt", device="cpu")


def test_nan_is_no_image(model, good, monkeypatch):
    super_resolve = type(model.predictor.system).super_resolve

    def broken(self, *arguments, **options):
        output = super_resolve(self, *arguments, **options)
        output.sr.fill_(torch.nan)
        return output

    monkeypatch.setattr(type(model.predictor.system), "super_resolve", broken)
    with pytest.raises(UserError, match="NaN"):
        model.upscale(good / "odd.png")
