"""Names of validation sets, and SR tensors as 8-bit images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.sr_eval import border_of, dataset_names, validation_sets
from tests.drawn import draw_photographs
from utils.convert import to_image, to_tensor


def test_sets_are_named_after_the_folder_that_says_something(tmp_path: Path):
    folders = [draw_photographs(tmp_path / name / "HR", images=1, size=(20, 16)) for name in ("One", "Two")]
    assert list(validation_sets(folders, [2], 10**6)) == ["One", "Two"]
    assert list(validation_sets(folders[:1], [2, 2.5], 10**6)) == ["One_x2", "One_x2.5"]
    assert dataset_names([tmp_path / "One"]) == ["One"] and dataset_names([]) == []
    with pytest.raises(ValueError, match="given twice"):
        validation_sets([folders[0], tmp_path / "One"], [2], 10**6)


def test_folders_of_one_name_get_as_many_of_those_above_as_tell_them_apart():
    folders = ["/a/one/test", "/a/two/test/HR", "/b/two/test", "/c/Set5"]
    assert dataset_names(folders) == ["one_test", "a_two_test", "b_two_test", "Set5"]


def test_images_survive_the_way_through_tensors():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert (to_image(to_tensor(image, "cpu")) == image).all()
    assert to_image(torch.tensor([-0.2, 0.5, 1.3]).view(1, 3, 1, 1)).tolist() == [[[0, 128, 255]]]
    assert [border_of(scale) for scale in (2, 2.5, 4.0)] == [2, 3, 4]


def test_nan_is_no_black_pixel():
    sr = torch.zeros(1, 3, 2, 2)
    sr[0, 1, 0, 1] = torch.nan
    with pytest.raises(ValueError, match="the network gives NaN"):
        to_image(sr)
