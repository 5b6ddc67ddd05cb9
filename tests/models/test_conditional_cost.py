"""MACs of conditional execution: those that run, at every number of patches."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import build_sr
from models.conditional_cost import fast_share, sr_macs
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.mask_policy import MaskPolicy
from models.masker import Masker
from models.tiling.run_patches import TileOptions
from utils.flops_counter import count_macs_at


@pytest.mark.parametrize("halo", [None, 0, 2])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.6, 1.0])
def test_conditional_macs_are_those_that_run(halo, share):
    system = ConditionalSR(
        Masker(8), build_sr("espcn", 2), build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 4}),
        Execution(halo, tiles=TileOptions(merge=False)),
    ).eval()  # fmt: skip
    lr = torch.rand(1, 3, 50, 61)
    with FlopCounterMode(display=False) as counter:
        output = system.infer(lr, MaskPolicy("budget", share))
    assert sr_macs(system, 50, 61, int(output.mask.sum())) == counter.get_total_flops() // 2


def test_conditional_macs_without_masker_and_bounds():
    system = ConditionalSR(
        Masker(8), build_sr("espcn", 2), build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 4}), Execution(halo=2)
    ).eval()
    fast, quality, masker = (count_macs_at(net, 64, 64) for net in (system.sr_fast, system.sr_quality, system.masker))
    assert sr_macs(system, 64, 64, 0, masker=False) == fast
    assert sr_macs(system, 64, 64, 64) == quality + masker
    assert sr_macs(system, 64, 64, 63) == fast + quality + masker
    assert fast_share(system, 64, 64) == pytest.approx((fast + masker) / (fast + masker + quality))
    assert sr_macs(system, 64, 64, 2.5) == pytest.approx((sr_macs(system, 64, 64, 2) + sr_macs(system, 64, 64, 3)) / 2)
    with pytest.raises(ValueError, match="64 patches"):
        sr_macs(system, 64, 64, 65)
