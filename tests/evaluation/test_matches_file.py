"""matches.npz: what is read back is what was matched, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.detection_eval import SplitResult
from evaluation.map_bootstrap import class_matches, weighted_map
from evaluation.matches_file import read_matches, write_matches
from tests.evaluation.test_map_bootstrap import NAMES, drawn_set
from utils.metrics import coco_map


def results(images: int = 5) -> dict[str, SplitResult]:
    """Two rows of the same images; the second finds nothing."""
    truth, found = drawn_set(1, images)
    nothing = [np.zeros((0, 6))] * images
    return {name: SplitResult(rows, truth) for name, rows in {"family/a": found, "b": nothing}.items()}


def test_rows_come_back_as_they_were(tmp_path: Path):
    split = results()
    write_matches(tmp_path / "m.npz", NAMES, split)
    for name, result in split.items():
        read, made = (
            read_matches(tmp_path / "m.npz", name),
            class_matches(result.ground_truth, result.detections, NAMES),
        )
        assert len(read) == len(made) == 2, "classes with objects"
        for one, other in zip(read, made, strict=True):
            assert one.image.tolist() == other.image.tolist() and torch.equal(one.hit, other.hit)
            assert torch.equal(one.objects, other.objects) and one.objects.dtype == torch.float64
        (figure,) = weighted_map(read, torch.ones(1, 5, dtype=torch.float64))
        expected = coco_map(result.ground_truth, result.detections, NAMES)["map50_95"]
        assert figure.item() == pytest.approx(expected, abs=1e-12)


def test_a_damaged_file_and_an_unknown_row_are_refused(tmp_path: Path):
    file = tmp_path / "m.npz"
    write_matches(file, NAMES, results())
    with pytest.raises(ValueError, match=r"m.npz: no matches of c .*delete its folder and measure again"):
        read_matches(file, "c")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"m.npz: no matches of b"):
        read_matches(file, "b")
