"""The masker in tiles decides as in one call."""

from __future__ import annotations

import pytest
import torch

from models import build_sr
from models.conditional_sr import ConditionalSR
from models.mask_policy import parse_policy
from models.masker import Masker
from models.tiling.masker_tiles import masker_logits
from models.tiling.run_patches import TileOptions


@pytest.mark.parametrize(("patch", "size"), [(4, (70, 91)), (8, (100, 64)), (32, (200, 330)), (16, (33, 500))])
def test_logits_of_tiles_are_those_of_the_whole(patch, size):
    masker, largest = Masker(patch, 4).eval(), 0
    masker.logits.weight.data.normal_()
    masker.norm.running_mean.normal_()
    lr = torch.rand(2, 3, *size)

    def run(window):
        nonlocal largest
        largest = max(largest, window.shape[-2] * window.shape[-1])
        return masker(window)

    most = (4 * patch + 2 * 16) ** 2
    with torch.no_grad():
        torch.testing.assert_close(masker_logits(run, lr, patch, most), masker(lr), rtol=0, atol=1e-5)
    assert largest <= most < size[0] * size[1]


def test_a_front_end_chooses_the_patches_of_the_whole_image():
    front = ConditionalSR(Masker(8, 4), build_sr("bicubic", 2), build_sr("espcn", 2)).eval()
    front.masker.logits.weight.data.normal_()
    front = front.with_execution(tiles=TileOptions(max_pixels=48**2))
    lr = torch.rand(1, 3, 90, 130)
    for text in ("learned", "threshold=0.4", "budget=0.25", "random=0.25", "edge=0.1", "all_fast", "all_quality"):
        policy = parse_policy(text)
        chosen = front.choose(lr, policy)
        assert torch.equal(chosen[:, None].float(), front.infer(lr, policy).mask)
