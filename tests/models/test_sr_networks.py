"""Every SR network: sizes, gradients, reach, saving, precision, starting point and published sizes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from benchmarks.sr_networks import SKIPPED
from models import SR_NETWORKS, build_sr
from models.sr_fast import ESPCN, FSRCNN, Bicubic, interpolation_matrix
from models.sr_quality import EDSR, SRResNet
from utils.flops_counter import count_parameters
from utils.resize import resize

SMALL = [
    ("bicubic", {}),
    ("espcn", {"n_feats": 8}),
    ("fsrcnn", {"d": 8, "s": 4, "m": 2}),
    ("edsr", {"n_blocks": 2, "n_feats": 8, "tail": "single"}),
    ("edsr", {"n_blocks": 2, "n_feats": 8, "tail": "staged", "res_scale": 0.5}),
    ("edsr", {"n_blocks": 2, "n_feats": 8, "div2k_mean": True}),
    ("srresnet", {"n_blocks": 2, "n_feats": 8}),
    ("carn", {"n_feats": 8}),
    ("carn_m", {"n_feats": 16}),
    ("imdn", {"n_blocks": 2, "n_feats": 32}),
    ("rfdn", {"n_blocks": 2, "n_feats": 8}),
    ("span", {"n_feats": 8}),
    ("rcan", {"n_groups": 2, "n_blocks": 2, "n_feats": 16, "reduction": 4}),
    ("rdn", {"n_blocks": 2, "n_layers": 2, "growth": 8, "n_feats": 8}),
    ("swinir_light", {"dim": 12, "n_groups": 2, "n_blocks": 2, "n_heads": 2}),
    ("swinir", {"dim": 12, "n_groups": 2, "n_blocks": 2, "n_heads": 2, "connection": "3conv"}),
    ("swinir", {"dim": 12, "n_groups": 2, "n_blocks": 2, "n_heads": 2}),
]
GLOBAL = ("imdn", "rfdn", "rcan", "swinir_light", "swinir")
NETWORKS = [pytest.param(name, args, scale, id=f"{name}-{'-'.join(map(str, args.values()))}-x{scale}")
            for name, args in SMALL for scale in (2, 3, 4)]  # fmt: skip
every_network = pytest.mark.parametrize(("name", "args", "scale"), NETWORKS)
# For what does not depend on the scale: x4 has the layers of x2 and more.
at_x4 = pytest.mark.parametrize(("name", "args", "scale"), [p for p in NETWORKS if p.values[2] == 4])
local_network = pytest.mark.parametrize(("name", "args", "scale"), [p for p in NETWORKS if p.values[0] not in GLOBAL])
global_network = pytest.mark.parametrize(
    ("name", "args", "scale"), [p for p in NETWORKS if p.values[0] in GLOBAL and p.values[2] == 4]
)


def random_network(name, args, scale):
    """A network in eval mode whose weights are all random, none left as the initialisation set them."""
    torch.manual_seed(0)
    network = build_sr(name, scale, args).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@every_network
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (16, 5)])
def test_output_is_scale_times_the_input_for_odd_sizes_too(name, args, scale, size):
    assert random_network(name, args, scale)(torch.rand(2, 3, *size)).shape == (2, 3, scale * size[0], scale * size[1])


@every_network
def test_gradient_reaches_every_input_pixel_and_every_parameter(name, args, scale):
    network = random_network(name, args, scale)
    lr = torch.rand(1, 3, 6, 7, requires_grad=True)
    network(lr).square().sum().backward()
    assert lr.grad.abs().min() > 0
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def positive_network(name, args, scale):
    """In double precision, all weights positive and small: nothing cancels, dies or saturates."""
    network = build_sr(name, scale, args).eval().double()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(0.1, 1).div_(parameter[0].numel())
    return network


def reach(network, receptive_radius):
    """Largest distance in LR pixels at which the HR cell of a pixel notices a change; tries 2 more than the radius."""
    centre = receptive_radius + 2
    lr = torch.empty(1, 3, 2 * centre + 1, 2 * centre + 1, dtype=torch.double).uniform_(0.6, 1).requires_grad_()
    cell = slice(centre * network.scale, (centre + 1) * network.scale)
    network(lr)[..., cell, cell].sum().backward()
    positions = torch.stack(lr.grad.abs().sum((0, 1)).nonzero(as_tuple=True))
    return (positions - centre).abs().max().item()


@local_network
def test_radius_is_exact(name, args, scale):
    network = positive_network(name, args, scale)
    assert reach(network, network.capabilities.receptive_radius) == network.capabilities.receptive_radius


@local_network
@torch.no_grad()
def test_a_pixel_beyond_the_radius_changes_nothing(name, args, scale):
    network = random_network(name, args, scale).double()
    centre = network.capabilities.receptive_radius + 1
    lr = torch.rand(1, 3, 2 * centre + 1, 2 * centre + 1, dtype=torch.double)
    cell = (..., slice(centre * scale, (centre + 1) * scale), slice(centre * scale, (centre + 1) * scale))
    expected = network(lr)[cell]
    for down, across in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        far = lr.clone()
        far[..., centre + down * centre, centre + across * centre] += 0.5
        assert torch.equal(expected, network(far)[cell]), (down, across)


@global_network
def test_attention_reaches_beyond_the_local_radius_and_convolutions_do_not(name, args, scale):
    network = positive_network(name, args, scale)
    assert network.capabilities.receptive_radius is None
    local_receptive_radius = network.capabilities.local_receptive_radius
    lr = torch.rand(1, 3, 2 * local_receptive_radius + 33, 2 * local_receptive_radius + 33, dtype=torch.double)
    far = lr.clone()
    below = far[..., local_receptive_radius + 2 :, :]
    below += 0.1 * torch.rand_like(below)
    assert (network(far) - network(lr))[..., :scale, :].abs().max() > 0
    with torch.no_grad():
        for key, parameter in network.named_parameters():  # constant attention
            if any(
                part in key for part in ("cca.conv_du.2.weight", "esa.conv4.weight", "conv_du.2.weight", "attn.proj")
            ):
                parameter.zero_()
    assert reach(network, network.capabilities.local_receptive_radius) == network.capabilities.local_receptive_radius


@at_x4
def test_saved_weights_give_the_same_image(name, args, scale, tmp_path):
    network = random_network(name, args, scale)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    twin = build_sr(network.spec["name"], scale, network.spec["args"]).eval()
    twin.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    lr = torch.rand(1, 3, 9, 8)
    assert torch.equal(twin(lr), network(lr))
    assert torch.equal(copy.deepcopy(network)(lr), network(lr))


@at_x4
def test_a_batch_gives_what_its_images_give(name, args, scale):
    network = random_network(name, args, scale)
    lr = torch.rand(3, 3, 11, 9)
    # CPUs with narrow registers sum a batch in another order than its images.
    for dtype, tolerance in ((torch.float32, 4e-6), (torch.float64, 1e-14)):
        batch = network.to(dtype)(lr.to(dtype))
        singles = torch.cat([network(image[None]) for image in lr.to(dtype)])
        assert (batch - singles).abs().max() <= tolerance * batch.abs().max()


@at_x4
def test_bfloat16_autocast_stays_close_to_float32(name, args, scale):
    network = build_sr(name, scale, args).eval()
    lr = torch.rand(1, 3, 12, 10)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(lr)
    assert (low.float() - network(lr)).abs().max() < 0.03


@every_network
def test_untrained_network_interpolates(name, args, scale):
    """Away from the border a fresh network shows the image, so that a short training starts from there."""
    lr = F.interpolate(torch.rand(1, 3, 4, 4), size=(24, 24), mode="bicubic").clamp(0, 1)
    bilinear = F.interpolate(lr, scale_factor=scale, mode="bilinear")
    inner = (..., slice(4 * scale, -4 * scale), slice(4 * scale, -4 * scale))
    assert (build_sr(name, scale, args).eval()(lr)[inner] - bilinear[inner]).abs().max() < 0.03


@every_network
def test_tail_holds_the_last_layers(name, args, scale):
    network = build_sr(name, scale, args)
    if name == "bicubic":
        assert network.tail is None
    else:
        tail = list(network.tail.parameters())
        assert 0 < len(tail) < len(list(network.parameters()))
        assert all(a is b for a, b in zip(tail, list(network.parameters())[-len(tail) :], strict=True))


# Bicubic


def test_bicubic_agrees_with_the_data_path():
    lr = torch.rand(3, 14, 11)
    expected = resize(lr.permute(1, 2, 0).numpy(), 56, 44)
    assert (Bicubic(4)(lr[None])[0].permute(1, 2, 0) - torch.from_numpy(expected)).abs().max() < 1e-5


def test_bicubic_keeps_no_state_and_a_bounded_cache():
    network = Bicubic(2)
    with torch.inference_mode():
        network(torch.rand(1, 3, 5, 6))
    network(torch.rand(1, 3, 5, 6, requires_grad=True)).sum().backward()  # the cached matrices serve training, too
    for size in range(1, 100):
        network(torch.rand(1, 1, size, 2))
    assert network.state_dict() == {}
    assert interpolation_matrix.cache_info().currsize <= 64


# Published sizes


def test_espcn_has_the_layers_of_the_paper():
    """5x5x1x64 + 64, 3x3x64x32 + 32, 3x3x32x(scale^2) + scale^2 for one colour, as in Shi et al. section 3.2."""
    assert count_parameters(ESPCN(3, colors=1)) == 1_664 + 18_464 + 2_601 == 22_729
    assert count_parameters(ESPCN(4)) == 4_864 + 18_464 + 13_872


def test_fsrcnn_has_the_published_number_of_weights():
    """FSRCNN(56, 12, 4): 25d + sd + 9ms^2 + ds + 81d = 12,464 weights (Dong et al., table 1)."""
    for scale in (2, 3, 4):
        network = FSRCNN(scale, colors=1)
        assert (
            sum(p.numel() for p in network.parameters() if p.ndim == 4) == 1_400 + 672 + 5_184 + 672 + 4_536 == 12_464
        )


@pytest.mark.parametrize(("scale", "published"), [(2, 1_369_859), (3, 1_554_499), (4, 1_517_571)])
def test_edsr_baseline_has_the_published_number_of_parameters(scale, published):
    assert count_parameters(EDSR(scale, n_blocks=16, n_feats=64)) == published


def test_edsr_loads_weights_named_as_in_the_authors_repository():
    names = set(EDSR(4, n_blocks=16, n_feats=64).state_dict())
    expected = {"head.0", "body.0.body.0", "body.15.body.2", "body.16", "tail.0.0", "tail.0.2", "tail.1"}
    assert {f"{name}.{kind}" for name in expected for kind in ("weight", "bias")} <= names
    assert len(names) == 2 * (1 + 32 + 1 + 3)


def test_srresnet_has_the_published_number_of_parameters():
    """x4: 9x9x3x64 + 33 of 3x3x64x64 + 2 of 3x3x64x256 + 9x9x64x3 = 1,542,528 weights, tabulated as 1,543 K.

    With the biases, 33 BatchNorms and 19 PReLUs of one slope each this is 1,549,462 parameters.
    """
    network = SRResNet(4)
    assert sum(p.numel() for p in network.parameters() if p.ndim == 4) == 15_552 + 33 * 36_864 + 2 * 147_456 + 15_552
    biases = 64 + 33 * 64 + 2 * 256 + 3
    assert count_parameters(network) == 1_542_528 + biases + 33 * 128 + 19 == 1_549_462


# Building by name


def test_spec_rebuilds_the_network():
    network = build_sr("edsr", 3, {"n_blocks": 1, "n_feats": 4})
    assert network.spec == {"name": "edsr", "args": {"scale": 3, "n_blocks": 1, "n_feats": 4}}
    assert build_sr(network.spec["name"], 3, network.spec["args"]).spec == network.spec


@pytest.mark.parametrize(
    ("name", "scale", "args", "message"),
    [
        ("edsrr", 4, {}, "edsrr.*bicubic, espcn, fsrcnn, edsr, edsr_int8, srresnet, carn, carn_m"),
        ("edsr", 5, {}, "scale is 5; use one of 2, 3, 4"),
        ("edsr", 4, {"blocks": 3}, "unknown argument 'blocks'; it takes n_blocks"),
        ("espcn", 4, {"n_blocks": 2}, "it takes n_feats, colors; where only the name was changed, give args too"),
        ("edsr", 4, {"scale": 2}, "scale"),
        ("edsr", 4, {"n_feats": 0}, "n_feats is 0, but must be a positive integer"),
        ("edsr", 4, {"n_feats": "many"}, "n_feats is 'many', but must be a positive integer"),
        ("edsr", 4, {"res_scale": "small"}, "res_scale is 'small', but must be of type float"),
        ("edsr", 4, {"tail": "double"}, "'staged' or 'single'"),
        ("bicubic", 4, {"a": 1}, "it takes upscale"),
        ("edsr", 4, {"div2k_mean": 1}, "div2k_mean is 1, but must be of type bool"),
        ("carn", 4, {"n_feats": 9, "groups": 4}, "n_feats is 9, but must be a multiple of groups = 4"),
        ("imdn", 4, {"n_feats": 10}, "n_feats is 10, but must be a multiple of 4"),
        ("rfdn", 4, {"n_feats": 1}, "n_feats is 1, but must be at least 2"),
        ("rcan", 4, {"n_feats": 8}, "n_feats is 8, but must be at least reduction = 16"),
        ("swinir", 4, {"upsampler": "bicubic"}, "upsampler is 'bicubic'; use 'pixelshuffle'"),
        ("swinir", 3, {"upsampler": "nearest+conv"}, "'nearest.conv' makes x2 and x4, not x3"),
        ("swinir", 4, {"connection": "2conv"}, "connection is '2conv'; use '1conv' or '3conv'"),
        ("swinir", 4, {"dim": 20}, "dim is 20, but must be a multiple of n_heads = 6"),
        ("spandrel", 4, {}, "spandrel has no network"),
        ("spandrel", 4, {"package": "ESRGAN", "network": "os"}, "spandrel has no network ESRGAN.os"),
        ("spandrel", 4, {"package": "Compact", "network": "Compact", "settings": "{"}, "cannot be built"),
    ],
)
def test_a_wrong_request_is_explained(name, scale, args, message):
    with pytest.raises(ValueError, match=message):
        build_sr(name, scale, args)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("espcn", {"n_feats": 2}),
        ("fsrcnn", {"d": 1, "s": 1}),
        ("edsr", {"n_feats": 2}),
        ("srresnet", {"n_feats": 1}),
        ("carn", {"n_feats": 1}),
        ("carn_m", {"n_feats": 4}),
        ("imdn", {"n_feats": 4}),
        ("rfdn", {"n_feats": 2}),
        ("span", {"n_feats": 1}),
        ("rdn", {"n_blocks": 1, "n_layers": 1, "growth": 1, "n_feats": 1}),
        ("rcan", {"n_groups": 1, "n_blocks": 1, "n_feats": 1, "reduction": 1}),
        ("swinir_light", {"dim": 2, "n_groups": 1, "n_blocks": 1, "n_heads": 1}),
    ],
)
def test_networks_with_very_few_maps_can_be_built(name, args):
    assert build_sr(name, 4, args)(torch.rand(2, 3, 5, 5)).isfinite().all()


def test_every_network_is_tested_here():
    # tests/loading/test_key_maps.py, tests/models/lmf, and a folder of each diffusion system
    elsewhere = {name for name in SR_NETWORKS if name.startswith("lm_") or name in SKIPPED}
    assert {name for name, _ in SMALL} | elsewhere == set(SR_NETWORKS)
