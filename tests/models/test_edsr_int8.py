"""models/edsr_int8.py: EDSR in 8-bit integers is near the EDSR that it was made of, and its sums are exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.data import astronaut

from loading.assembled_system import ready_network
from models import build_sr
from models.edsr_int8 import SIGNED, UNSIGNED, Int8Conv, OrderedConv, quantised
from utils.errors import UserError
from utils.flops_counter import count_macs_at, count_parameters
from utils.resize import resize


def edsr(**args):
    torch.manual_seed(0)
    network = build_sr("edsr", 2, {"n_blocks": 2, "n_feats": 16, "tail": "single"} | args).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def db(one, other):
    return -10 * math.log10((one.clamp(0, 1) - other.clamp(0, 1)).square().mean().item())


@pytest.mark.parametrize("args", [{}, {"res_scale": 0.3}, {"div2k_mean": True}])
@torch.no_grad()
def test_it_is_near_the_network_that_it_was_made_of(args):
    network, images = edsr(**args), [torch.rand(1, 3, 24, 30) for _ in range(3)]
    integers = quantised(network, images)
    assert integers.spec["name"] == "edsr_int8" and "res_scale" not in integers.spec["args"]
    assert 45 < db(integers(images[0]), network(images[0])) < 90  # near, and not the same
    assert count_parameters(integers) == count_parameters(network)
    assert count_macs_at(integers, 16, 16) == pytest.approx(count_macs_at(network, 16, 16), rel=0.1)
    rebuilt = build_sr("edsr_int8", 2, {k: v for k, v in integers.spec["args"].items() if k != "scale"}).eval()
    rebuilt.load_state_dict(integers.state_dict())
    assert torch.equal(rebuilt(images[1]), integers(images[1]))


@torch.no_grad()
def test_a_photograph_loses_less_than_a_tenth_of_a_db():
    photograph = astronaut()[:192, 128:320]
    lr = torch.from_numpy(resize(np.ascontiguousarray(photograph), 48, 48).transpose(2, 0, 1).copy())[None] / 255
    hr = torch.from_numpy(photograph.transpose(2, 0, 1).copy())[None] / 255
    network = ready_network("edsr_8x32", 4)
    integers = quantised(network, [lr.flip(-1), lr.transpose(2, 3)])
    assert abs(db(network(lr), hr) - db(integers(lr), hr)) < 0.1
    assert db(integers(lr), network(lr)) > 50


def test_a_convolution_is_one_of_integers():
    layer, generator = Int8Conv(64, 16, UNSIGNED), torch.Generator().manual_seed(0)
    layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape, generator=generator))
    layer.weight[0] = 127  # together with the brightest inputs beyond what fp32 counts
    layer.weight_step.fill_(0.5), layer.input_step.fill_(0.25), layer.check()
    x = torch.rand(1, 64, 9, 11, generator=generator) * 90 - 10
    x[:, :, 4:8, 4:8] = 1000
    units = (x / 0.25).round().clamp(0, 255).to(torch.int64).double()
    sums = F.conv2d(units, layer.weight.double(), padding=1)
    assert sums.abs().max() > 1 << 24 and layer.sum_type == torch.float64
    assert torch.equal(layer(x), sums.float() * 0.125)


def test_sums_that_fp32_counts_are_made_in_fp32():
    layer = Int8Conv(16, 16, SIGNED)
    layer.weight.fill_(127), layer.check()
    assert layer.sum_type == torch.float32


@torch.no_grad()
def test_the_first_layer_adds_up_in_order():
    layer, x = OrderedConv(3, 8, 3, padding=1), torch.rand(2, 3, 7, 9)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1))


@torch.no_grad()
def test_dead_outputs_and_black_images_give_steps_all_the_same():
    network = edsr()
    network.body[0].body[0].weight[3] = 0
    for parameter in network.head.parameters():
        parameter.zero_()
    integers = quantised(network, [torch.zeros(1, 3, 8, 8)])
    assert integers(torch.rand(1, 3, 8, 8)).isfinite().all()


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["input_step", "weight_step"])
def test_steps_that_are_none_are_refused(name, value):
    network = quantised(edsr(), [torch.rand(1, 3, 8, 8)])
    state = network.state_dict()
    state[f"body.1.body.2.{name}"] = torch.full_like(state[f"body.1.body.2.{name}"], value)
    with pytest.raises(UserError, match=rf"{name} of an int8 convolution is \[.*quantise the network anew"):
        network.load_state_dict(state)


def test_what_has_no_8_bit_form_is_refused():
    images = [torch.rand(1, 3, 8, 8)]
    for network in (edsr(tail="staged"), build_sr("espcn", 2), quantised(edsr(), images)):
        with pytest.raises(UserError, match="has no 8-bit form here; take an edsr with tail single"):
            quantised(network, images)
    with pytest.raises(UserError, match="no image to calibrate on"):
        quantised(edsr(), [])
