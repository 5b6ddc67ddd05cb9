"""Encoders: published sizes, reach, gradients, and SwinIR's windows."""

from __future__ import annotations

import pytest
import torch

from models.lmf import build_encoder
from models.lmf.encoders import EDSREncoder, RDNEncoder
from models.lmf.network import mirror_pad
from models.lmf.swinir_encoder import SwinIREncoder, shift_mask, unwindows, windows
from utils.flops_counter import count_parameters

SMALL_SWINIR = {"dim": 12, "depths": (2, 2), "heads": 2, "n_feats": 8}
SMALL = [
    lambda: EDSREncoder(2, 8),
    lambda: RDNEncoder(2, 8, growth=4, n_convs=3),
    lambda: SwinIREncoder(**SMALL_SWINIR),
]
small_encoders = pytest.mark.parametrize("build", SMALL, ids=["edsr", "rdn", "swinir"])


@pytest.mark.parametrize(
    ("name", "published"),
    [("edsr_baseline", 1_220_440 - 24), ("rdn", 21_973_952), ("swinir", 11_603_044)],  # 24: EDSR's unused mean shifts
)
def test_published_number_of_parameters(name, published):
    assert count_parameters(build_encoder(name, 16, 64)) == published


@small_encoders
def test_features_have_the_size_of_the_image_and_pass_gradients(build):
    encoder = build()
    x = torch.rand(2, 3, 16, 24, requires_grad=True)
    features = encoder(x)
    assert features.shape == (2, 8, 16, 24)
    features.square().sum().backward()
    assert x.grad.abs().min() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("build", SMALL[:2], ids=["edsr", "rdn"])
def test_radius_is_exact(build):
    encoder = build().double()
    with torch.no_grad():
        for parameter in encoder.parameters():  # positive and small: nothing cancels or dies
            parameter.uniform_(0.1, 1).div_(parameter[0].numel())
    centre = encoder.receptive_radius + 2
    x = torch.rand(1, 3, 2 * centre + 1, 2 * centre + 1, dtype=torch.double, requires_grad=True)
    encoder(x)[..., centre, centre].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()
    assert centre - rows.min() == rows.max() - centre == encoder.receptive_radius


def test_windows_can_be_undone():
    x = torch.rand(2, 16, 24, 5)
    assert windows(x).shape == (2, 6, 64, 5)
    assert torch.equal(windows(x)[0, 1, :8], x[0, 0, 8:16])
    assert torch.equal(unwindows(windows(x), 16, 24), x)


def test_shifted_windows_do_not_look_across_the_border():
    """Moved by half a window, the last row of windows holds the lower and the upper edge of the image."""
    mask = shift_mask(16, 16, torch.zeros(1))  # (4 windows, 1, 64, 64)
    assert (mask[0] == 0).all()  # inside the image everything sees everything
    seen = (mask[3, 0] == 0).sum(1)
    assert seen.tolist() == [16] * 64  # in the corner, a quarter of the window each


def test_swinir_sees_what_lies_within_reach_of_its_windows_only():
    encoder = SwinIREncoder(12, (2,), 2, 8).double().eval()
    x = torch.rand(1, 3, 32, 32, dtype=torch.double, requires_grad=True)
    encoder(x)[0, :, 0, 0].sum().backward()
    assert x.grad[..., 20:, :].abs().max() < 1e-30  # masked attention is e^-100
    assert x.grad[..., :4, :4].abs().min() > 0


@pytest.mark.parametrize("size", [(1, 3), (8, 8), (9, 15)])
def test_mirror_padding_repeats_the_edge(size):
    image = torch.rand(1, 3, *size)
    padded = mirror_pad(image, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert torch.equal(padded[..., : size[0], : size[1]], image)
    if size == (9, 15):
        assert torch.equal(padded[..., 9:, :15], image.flip(2)[..., :7, :])
        assert torch.equal(padded[..., :9, 15:], image[..., -1:])
    assert mirror_pad(image, 1) is image


def test_unknown_encoders_are_refused():
    with pytest.raises(ValueError, match="'edsr' is unknown; use one of edsr_baseline, rdn, swinir"):
        build_encoder("edsr", 16, 64)
    with pytest.raises(ValueError, match="n_blocks is 4, but its depth is fixed"):
        build_encoder("swinir", 4, 64)
