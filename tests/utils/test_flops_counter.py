"""MAC and parameter counts: arithmetic, published figures, and what conditional execution really executes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import build_sr
from utils.flops_counter import count_macs, count_macs_at, count_parameters


def test_a_convolution_counts_one_mac_per_weight_and_output_pixel():
    assert count_macs(nn.Conv2d(3, 8, 3, padding=1), torch.rand(2, 3, 5, 7)) == 2 * 5 * 7 * 8 * 3 * 9
    assert count_parameters(nn.Conv2d(3, 8, 3)) == 8 * 3 * 9 + 8


def test_counting_leaves_modes_and_statistics_alone():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1).eval())
    statistics = network[1].running_mean.clone()
    count_macs(network, torch.rand(2, 3, 5, 7))
    assert count_macs_at(network, 5, 7) == 5 * 7 * (12 + 16)
    assert network.training and network[1].training and not network[2].training
    assert torch.equal(network[1].running_mean, statistics)


@pytest.mark.parametrize("name", ["bicubic", "espcn", "fsrcnn", "edsr", "srresnet"])
def test_shapes_alone_give_the_same_count_as_running(name):
    network = build_sr(name, 2)
    assert count_macs_at(network, 11, 13) == count_macs(network, torch.rand(1, 3, 11, 13))


def test_multiply_adds_for_a_720p_image_at_x4():
    """SRResNet has 127.8 G for an output of 1280 x 720 in published tables; EDSR-baseline by arithmetic per pixel."""
    assert count_macs_at(build_sr("srresnet", 4), 180, 320) / 1e9 == pytest.approx(127.8, abs=0.05)
    edsr = 9 * (3 * 64 + 33 * 64 * 64 + 64 * 256 + 4 * 64 * 256 + 16 * 64 * 3)
    assert count_macs_at(build_sr("edsr", 4), 180, 320) == 180 * 320 * edsr


def test_bicubic_counts_both_matrix_products():
    assert count_macs_at(build_sr("bicubic", 4), 10, 20) == 3 * (10 * 20 * 80 + 40 * 10 * 80)
