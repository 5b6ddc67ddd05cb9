"""Low frequencies by an a-trous wavelet."""

from __future__ import annotations

import math

import torch

from models.one_step_diffusion.colour_fix import fix_colours, low_pass


def test_the_reference_itself_stays_as_it_is():
    image = torch.rand(2, 3, 40, 50)
    assert torch.equal(fix_colours(image, image), image)


def test_a_constant_offset_of_colour_vanishes():
    image = torch.rand(1, 3, 40, 50)
    tinted = image + torch.tensor([0.3, -0.2, 0.05])[:, None, None]
    torch.testing.assert_close(fix_colours(tinted, image), image, atol=1e-6, rtol=0)


def test_the_filter_has_a_deviation_of_thirteen_pixels():
    point = torch.zeros(1, 1, 129, 129, dtype=torch.float64)
    point[..., 64, 64] = 1
    spread = low_pass(point)[0, 0]
    place = torch.arange(129, dtype=torch.float64) - 64
    assert spread.sum().item() == 1
    deviation = math.sqrt((spread.sum(0) * place**2).sum().item())
    assert deviation == math.sqrt((spread.sum(1) * place**2).sum().item())
    assert round(deviation, 2) == 13.06


def test_high_frequencies_are_those_of_the_result():
    result, reference = torch.rand(1, 3, 48, 48), torch.rand(1, 3, 48, 48)
    fixed = fix_colours(result, reference)
    expected = (result - low_pass(result)) + low_pass(reference)
    torch.testing.assert_close(fixed, expected, atol=1e-6, rtol=0)


def test_small_images():
    assert fix_colours(torch.rand(1, 3, 1, 2), torch.rand(1, 3, 1, 2)).shape == (1, 3, 1, 2)
