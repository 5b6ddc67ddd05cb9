"""The learned policy keeps its share: on the images that it was calibrated with, and on others of the same kind."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import OptimConfig, RunConfig
from configs.stage3_schema import Stage3Config
from data.detection import DetectionDataset, load_data_spec, scan_split
from data.detection_batch import collate_detection
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.content import image_patches
from models.mask_policy import parse_policy
from models.masker import OFFSET_GAIN, Masker, dividing_score
from tests.drawn import draw_detection_set
from training.stage3_validation import Stage3Validation

PATCH, SCALE, IMAGES = 4, 2, 40


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> dict[str, DetectionDataset]:
    """Drawn photographs, letterboxed: those of `val` for the calibration, those of `train` to be held out."""
    spec = load_data_spec(draw_detection_set(tmp_path_factory.mktemp("set"), images=IMAGES, size=(48, 64)))
    return {name: DetectionDataset(scan_split(spec, name)[0], spec.names, (64, 64), SCALE) for name in ("val", "train")}


def front_with(seed: int) -> ConditionalSR:
    """A masker with opinions of its own, far from any share."""
    torch.manual_seed(seed)
    masker = Masker(PATCH, bias=3.0)
    with torch.no_grad():
        masker.logits.weight.normal_()
    return ConditionalSR(masker, build_sr("bicubic", SCALE), build_sr("bicubic", SCALE)).eval()


def kept_share(front: ConditionalSR, dataset: DetectionDataset) -> float:
    """Of the patches that hold image, under the learned policy, image by image."""
    kept = held = 0
    for index in range(len(dataset)):
        batch = collate_detection([dataset[index]]).to("cpu")
        mask = front.infer(batch.lr, parse_policy("learned"), batch.content).mask[:, 0] > 0.5
        image = image_patches(batch.content, batch.lr.shape[-2:], PATCH)
        kept, held = kept + int(mask.sum()), held + (mask.numel() if image is None else int(image.sum()))
    return kept / held


@pytest.mark.parametrize(("seed", "share"), [(0, 0.25), (1, 0.1), (2, 0.5)])
def test_new_images_of_the_kind_keep_the_share(images, seed: int, share: float):
    front = front_with(seed)
    config = Stage3Config(run=RunConfig(workers=0), optim=OptimConfig(batch=7))
    system = SimpleNamespace(front=front)
    before = kept_share(front, images["val"])
    figures = Stage3Validation(system, images["val"], config, None, torch.device("cpu")).calibrate(share)
    assert figures["val/kept_share_before_calibration"] == pytest.approx(before) and abs(before - share) > 0.1
    assert kept_share(front, images["val"]) == pytest.approx(share, abs=1 / (2 * IMAGES * 48 + 1))
    assert kept_share(front, images["train"]) == pytest.approx(share, abs=0.03)
    assert 0.001 < figures["val/kept_share_error"] < 0.03


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_equal_scores_stay_together_and_no_other_place_is_nearer(values: list[int], share: float):
    """As of flat patches, of which there may be many; rounding may not decide over them."""
    scores = torch.tensor(values, dtype=torch.float32) / 10
    found = dividing_score(scores, share)
    reached = sorted({float((scores > value).float().mean()) for value in scores.tolist()} - {0.0})
    nearest = min((abs(value - share) for value in reached), default=None)
    if nearest is None:
        assert ((scores - found).abs() >= 0.5).all(), "all or nothing, clearly"
        return
    assert abs((scores > found).float().mean().item() - share) == pytest.approx(nearest, abs=1e-6)
    assert (scores - found).abs().min() > 0.04, "halfway"


def test_flat_images_do_not_hang_on_rounding():
    """Half of all patches are flat and score alike: the offset drops or keeps them as one."""
    masker = Masker(PATCH).eval()
    scores = torch.cat([torch.full((500,), 0.1234567), torch.linspace(-1, 0, 300), torch.linspace(1, 2, 200)])
    with torch.no_grad():
        masker.offset.zero_()
    masker.calibrate(scores, 0.25)
    assert ((scores + OFFSET_GAIN * masker.offset) > 0).float().mean().item() == pytest.approx(0.2)
