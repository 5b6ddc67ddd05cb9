"""Scores of a split: the image counts, not the grey around it; areas of boxes; images that come out exactly right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from configs.evaluate_schema import EvaluateConfig
from configs.schema import DetectionDataConfig, RunConfig
from data.data_spec import Record
from data.detection import DetectionDataset
from data.detection_batch import DetectionBatch, collate_detection
from data.letterbox import fit_letterbox
from evaluation.detection_eval import SplitResult, detect_split, object_map
from evaluation.measure_rows import DetectionEvaluation
from evaluation.oracle_mask import OracleMask, patch_coverage
from evaluation.row_key import RowKey
from evaluation.rows import Row
from models.conditional_sr import ConditionalOutput
from models.content import image_cells
from models.mask_policy import parse_policy
from tests.models.test_system import NAMES, make_system
from utils.metrics import PSNR_CEILING

EDGES = st.floats(-30, 60).map(lambda value: round(value, 3))


def letterboxed(folder: Path, height: int, width: int, canvas: tuple[int, int], images: int = 2) -> DetectionDataset:
    """Noise with one object in the upper left corner, scale 2."""
    records = []
    for index in range(images):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = folder / f"{index}.png"
        Image.fromarray(pixels).save(path)
        box = np.array([[4 / width, 4 / height, 8 / width, 8 / height]], np.float32)
        records.append(Record(path, path.with_suffix(".txt"), height, width, np.zeros(1, np.int64), box))
    return DetectionDataset(records, NAMES, canvas, 2)


def test_kept_shares_and_psnr_leave_the_padding_out(tmp_path):
    dataset = letterboxed(tmp_path, 32, 64, (64, 64))
    batch = collate_detection([dataset[0], dataset[1]])
    assert batch.content.tolist() == [[[8, 0, 24, 32]]] * 2
    mask = torch.zeros(2, 1, 4, 4)
    mask[:, :, 0], mask[0, :, 1, 0] = 1, 1  # all patches of the upper bar, and that of the object

    def predict(batch):
        sr = batch.hr.clone()
        sr[:, :, :16] = 0  # what a network makes of the bar is nothing to score
        sr[:, :, 16:48] += 0.01
        return [torch.zeros(0, 6)] * 2, ConditionalOutput(sr, mask, None)

    result = detect_split(predict, [batch], torch.device("cpu"), patch=8, with_psnr=True)
    assert result.kept_per_image == [1 / 8, 0] and result.kept_share == 1 / 16
    assert result.patches_per_image == [5, 4], "what the cost counts"
    assert (result.kept_inside, result.kept_outside) == (0.5, (256 - 64) / (2 * (32 * 64 - 64)))
    assert result.psnr > 35


def test_a_strip_without_anything_inside_the_border_has_no_psnr(tmp_path):
    (tmp_path / "other").mkdir()
    datasets = letterboxed(tmp_path, 4, 64, (64, 64), 1), letterboxed(tmp_path / "other", 32, 64, (64, 64), 1)
    batches = [collate_detection([dataset[0]]) for dataset in datasets]

    def predict(batch):
        return [torch.zeros(0, 6)], ConditionalOutput(batch.hr + 0.01)

    assert detect_split(predict, batches[:1], torch.device("cpu"), with_psnr=True).psnr is None
    result = detect_split(predict, batches, torch.device("cpu"), with_psnr=True)
    assert len(result.detections) == 2 and len(result.psnr_per_image) == 1 and result.psnr > 35


@pytest.mark.parametrize("policy", ["budget=0.5", "random=0.5", "edge=0.5", "oracle", "all_quality", "all_fast"])
def test_rows_keep_shares_of_the_image_and_count_what_ran(policy, tmp_path):
    system, dataset = make_system(halo=2).eval(), letterboxed(tmp_path, 32, 64, (64, 64))
    policy = OracleMask(0.5) if policy == "oracle" else parse_policy(policy)
    config = EvaluateConfig(run=RunConfig(out=""), data=DetectionDataConfig(scale=2), batch=2, timing_runs=0)
    evaluation = DetectionEvaluation([Row(RowKey("row"), system, policy)], dataset, config, torch.device("cpu"))
    split = evaluation.quality()["row"]
    share = {"all_quality": 1, "all_fast": 0}.get(policy.kind, 0.5)
    ran = {"all_quality": 16, "all_fast": 0}.get(policy.kind, 4)
    assert split.kept_per_image == [share] * 2 and split.patches_per_image == [ran] * 2
    (row,) = evaluation.table({"row": split}, {"row": {}})
    assert row["kept_share"] == share
    fewer = {"sr_fast": ran == 16, "sr_quality": ran == 0, "masker": not policy.needs_masker}
    parts = [part for name, part in system.front.named_children() if not fewer[name]] + [system.detector]
    assert row["params"] == sum(p.numel() for part in parts for p in part.parameters())


def test_the_oracle_spends_nothing_on_padding(tmp_path):
    dataset = letterboxed(
        tmp_path, 28, 64, (64, 64)
    )  # 14 LR rows from 9 to 23: the patches' first and last rows differ
    batch = collate_detection([dataset[0], dataset[1]])
    image = image_cells(batch.content, (32, 32), 8)
    logits = torch.zeros(2, 2, 4, 4)
    logits[:, 1, 0] = 9  # a masker that believes in the bar
    mask = OracleMask(0.5).for_batch(batch, 8).select(batch.lr, logits, 8, batch.content)
    assert mask.sum((1, 2)).tolist() == [round(0.5 * int(n)) for n in image.sum((1, 2))] and not (mask & ~image).any()
    box = batch.letterboxes[0]
    whole = replace(batch, boxes=torch.tensor([[0.5, 0.5, 1.0, 1.0]] * 2))
    assert torch.equal(patch_coverage(whole, 8), image.float()), "full where all that is image is covered"
    assert box.lr_rectangle(2) == tuple(batch.content[0, 0].tolist()) and mask[:, box.top // 16, 0].all()


@given(st.lists(st.tuples(EDGES, EDGES, EDGES, EDGES), max_size=4), st.integers(1, 20), st.integers(1, 24))
def test_a_pixel_counts_where_it_shares_area_with_a_box(boxes: list, height: int, width: int):
    covered = object_map(np.array(boxes, float).reshape(-1, 4), (height, width))
    for y in range(height):
        for x in range(width):
            shares = [x1 < x + 1 and x2 > x and y1 < y + 1 and y2 > y and x1 < x2 and y1 < y2
                      for x1, y1, x2, y2 in boxes]  # fmt: skip
            assert covered[y, x] == any(shares)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((-1e-6, 2, 5, 4), 10),  # a rounding error left of the canvas
        ((2, -1e-6, 4, 5), 10),
        ((-9, -9, -1, -1), 0),
        ((40, 2, 50, 4), 0),
        ((-5, -5, 50, 50), 12 * 16),
        ((5, 2, 3, 4), 0),
        ((3.5, 2, 3.5, 4), 0),
    ],
)
def test_boxes_at_and_beyond_the_border(box: tuple, pixels: int):
    assert object_map(np.array([box]), (12, 16)).sum() == pixels


def split_of(sr: torch.Tensor, hr: torch.Tensor) -> SplitResult:
    """The result of a split whose images (n, 3, 24, 32) come out as `sr`."""
    count = len(hr)
    batch = DetectionBatch(
        hr[..., ::2, ::2], hr, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64),
        torch.ones(count, dtype=torch.bool), torch.arange(count), -1, [""] * count,
        [fit_letterbox(24, 32, (24, 32), 2)] * count, 2,
    )  # fmt: skip
    found = [torch.zeros(0, 6)] * count
    return detect_split(lambda _: (found, ConditionalOutput(sr, None, None, None)), [batch], "cpu", with_psnr=True)


def test_a_uniform_image_leaves_the_mean_psnr_finite():
    hr = torch.full((2, 3, 24, 32), 0.5)
    sr = hr.clone()
    sr[1] += 0.1
    result = split_of(sr, hr)
    assert result.psnr_per_image[0] == PSNR_CEILING and 20 < result.psnr_per_image[1] < 22
    assert result.psnr == pytest.approx((PSNR_CEILING + result.psnr_per_image[1]) / 2)


def test_an_image_with_nan_is_no_psnr():
    hr = torch.full((1, 3, 24, 32), 0.5)
    with pytest.raises(ValueError, match="NaN or infinite"):
        split_of(hr * torch.nan, hr)


def test_psnr_leaves_out_a_border_of_the_scale():
    hr = torch.full((2, 3, 24, 32), 0.5)
    sr = hr.clone()
    sr[..., :2, :], sr[..., -2:] = 1, 0
    sr[1, :, 2, 20] = 1  # the first row that counts
    first, second = split_of(sr, hr).psnr_per_image
    assert first == PSNR_CEILING and 30 < second < 40
