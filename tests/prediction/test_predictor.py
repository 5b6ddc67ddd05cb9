"""Images are padded for the detector; masks and shares are those of the images."""

from __future__ import annotations

import pytest
import torch

from loading.systems import load_system
from models.mask_policy import parse_policy
from prediction.predictor import Predictor, StageTimes, content_of, pad_images
from tests.prediction.running import noise


def test_content_is_where_the_images_are():
    images = [noise(5, 8, 3), noise(8, 3, 3)]
    assert content_of(images, (8, 8)).tolist() == [[[0, 0, 5, 8]], [[0, 0, 8, 3]]]
    assert content_of([noise(8, 8, 3)] * 2, (8, 8)) is None
    padded = pad_images(images, (8, 8))
    for image, (((top, left, bottom, right),), canvas) in zip(images, zip(content_of(images, (8, 8)).tolist(), padded)):
        assert (canvas[top:bottom, left:right] == image).all()


@pytest.mark.parametrize("policy", ["budget=0.25", "random=0.25", "edge=0.25"])
def test_a_share_is_one_of_the_images_own_patches(policy, weights):
    policy, device = parse_policy(policy), torch.device("cpu")
    predictor = Predictor(load_system(weights), policy, device)
    images = [noise(17, 23, 3), noise(18, 9, 3, seed=1)]  # padded to 24 x 24
    for image, found in zip(images, predictor(images, StageTimes(device)), strict=True):
        patches = -(-image.shape[0] // 4) * -(-image.shape[1] // 4)
        assert found.mask.size == patches and found.mask.sum() == round(0.25 * patches)
        assert found.kept_share == found.mask.mean()
        if not policy.needs_masker:  # the masker sees what lies beside an image
            bare = torch.from_numpy(image).permute(2, 0, 1)[None].float().div(255)
            assert torch.equal(torch.from_numpy(found.mask), policy.select(bare, None, 4)[0])
