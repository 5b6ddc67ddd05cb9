"""How the decoder starts: nearly as interpolation, but with the image in every layer."""

from __future__ import annotations

import pytest
import torch

from models import build_sr
from models.ldcsr.decoder import COLOURS
from models.ldcsr.upsampler import ContinuousUpsampler
from tests.extras import needs_generative
from utils.errors import UserError

pytestmark = needs_generative


def test_the_layers_at_every_pixel_begin_as_a_linear_map():
    torch.manual_seed(0)
    fuse = ContinuousUpsampler(channels=4, levels=3, width=16).fuse.double()
    first, second = torch.randn(2, 1, 12, 5, 6, dtype=torch.double)
    assert (fuse(first + second) - fuse(first) - fuse(second)).abs().max() < 1e-12
    assert fuse(first).abs().max() > 1e-3  # and not as nothing


def decoder(**args):
    torch.manual_seed(0)
    sizes = {"channels": 8, "n_modules": 1, "encoder_channels": 8, "levels": 2, "width": 16}
    return build_sr("ldcsr_kd", 2, sizes | args).eval().autoencoder.decoder


def test_colours_of_both_signs_pass_all_levels():
    made, seen = decoder(), []
    made.levels[-1].register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    lr = torch.rand(1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        made(torch.zeros(1, 4, 2, 2), lr, (16, 16))
    found = seen[0][:, :COLOURS] - seen[0][:, COLOURS : 2 * COLOURS]
    correlation = torch.corrcoef(torch.stack([found.flatten(), lr.flatten()]))[0, 1]
    assert correlation > 0.9


def test_an_odd_width_is_refused():
    with pytest.raises(UserError, match="width is 15, but must be even"):
        decoder(width=15)
