"""Periodised wavelets: exact inverse, published filters, energy, and the Haar block by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.difiisr_dwt.dwt import WAVELETS, decompose, dwt2, high_pass, idwt2, reconstruct
from utils.errors import UserError

wavelets = pytest.mark.parametrize("wavelet", WAVELETS)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(WAVELETS)), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
def test_every_size_comes_back_exactly(wavelet, levels, rows, columns, channels):
    torch.manual_seed(rows + 10 * columns)
    image = torch.randn(2, channels, 2**levels * rows, 2**levels * columns, dtype=torch.double)
    low, details = decompose(image, wavelet, levels)
    assert low.shape == (2, channels, rows, columns)
    assert [detail.shape[-2:] for detail in details] == [(2**k * rows, 2**k * columns) for k in range(levels)]
    assert (reconstruct(low, details, wavelet) - image).abs().max() < 1e-12


def test_haar_of_one_block():
    a, b, c, d = 1.0, 2.0, 3.0, 5.0
    low, details = dwt2(torch.tensor([[a, b], [c, d]])[None, None])
    assert low.item() == pytest.approx((a + b + c + d) / 2)
    expected = [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
    assert details.flatten().tolist() == pytest.approx(expected)


def test_details_are_stored_band_by_band():
    image = torch.rand(1, 3, 8, 8)
    together, single = dwt2(image)[1], dwt2(image[:, 1:2])[1]
    assert torch.equal(together[:, 1::3], single)


@wavelets
def test_bands_say_what_their_names_say(wavelet):
    """Stripes across the rows are all in LH (the rows' high band), stripes across the columns in HL, checks in HH."""
    stripes = torch.tensor([1.0, -1]).repeat(8).double()
    flat = torch.ones(16, dtype=torch.double)
    for column, row, band in ((flat, stripes, 0), (stripes, flat, 1), (stripes, stripes, 2)):
        low, details = dwt2(torch.outer(column, row)[None, None], wavelet)
        energy = details.square().sum((0, 2, 3))
        assert energy[band] / (energy.sum() + low.square().sum()) == pytest.approx(1, abs=1e-12)


@wavelets
def test_flat_images_have_no_detail_and_twice_their_value_a_level(wavelet):
    low, details = decompose(torch.full((1, 1, 16, 24), 0.7, dtype=torch.double), wavelet, 2)
    assert (low - 2.8).abs().max() < 1e-12
    assert max(detail.abs().max() for detail in details) < 1e-12


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_orthonormal_wavelets_keep_the_energy(wavelet):
    image = torch.randn(1, 2, 12, 16, dtype=torch.double)
    low, details = dwt2(image, wavelet)
    assert low.square().sum() + details.square().sum() == pytest.approx(image.square().sum().item())


def test_published_filters():
    """As Daubechies (1992) and PyWavelets print them, up to the direction in which they are read."""
    assert WAVELETS["db2"][0] == pytest.approx((0.48296291, 0.83651630, 0.22414387, -0.12940952))
    assert WAVELETS["bior1.3"][0] == pytest.approx(
        (-0.08838835, 0.08838835, 0.70710678, 0.70710678, 0.08838835, -0.08838835)
    )
    assert high_pass(WAVELETS["bior1.3"][0]) == pytest.approx(
        [-0.08838835, -0.08838835, 0.70710678, -0.70710678, 0.08838835, 0.08838835]
    )  # fmt: skip


@pytest.mark.parametrize("wavelet", ["db2", "bior1.3"])
def test_lines_have_no_detail_away_from_the_seam(wavelet):
    """db2 and the analysis of bior1.3's synthesis side: two vanishing moments for db2, one for bior1.3."""
    ramp = torch.arange(32, dtype=torch.double).expand(1, 1, 32, 32)
    detail = dwt2(ramp, wavelet)[1][..., 4:-4]
    assert (detail.abs().max() < 1e-12) == (wavelet == "db2")


@wavelets
def test_gradients_pass_through(wavelet):
    image = torch.randn(1, 1, 4, 8, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: idwt2(*dwt2(x, wavelet), wavelet) + dwt2(x, wavelet)[0].sum(), image)


def test_unknown_wavelets_and_odd_sides_are_refused():
    with pytest.raises(UserError, match=r"'sym4' is unknown; use one of haar, db2, bior1\.3"):
        dwt2(torch.rand(1, 1, 4, 4), "sym4")
    with pytest.raises(UserError, match="found 4x5; pad the image"):
        dwt2(torch.rand(1, 1, 4, 5))
