"""Arbitrary-scale networks: sizes, published counts, gradients, and everything that must not change the image."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from loading.load_sr import load_sr
from models import SR_NETWORKS, build_sr
from models.lmf import LMF, SwinIREncoder
from models.lmf.cross_scale_attention import tiles
from models.lmf.lm_ciaosr import CiaoSRDecoder
from models.lmf.lm_hybrid import HybridDecoder
from models.lmf.lm_liif import LIIFDecoder
from models.lmf.lm_lte import LTEDecoder
from models.lmf.queries import place_all, relative_cell
from models.tiling.run_patches import run_on_tiles
from utils.checkpoint import save_network
from utils.flops_counter import count_macs_at, count_parameters

SMALL = {"n_blocks": 1, "n_feats": 8}
every_network = pytest.mark.parametrize("name", [name for name in SR_NETWORKS if name.startswith("lm_")])
DECODERS = {"lm_liif": LIIFDecoder, "lm_lte": LTEDecoder, "lm_ciaosr": CiaoSRDecoder, "lm_hybrid": HybridDecoder}


def random_network(name, scale=2, **args):
    """A network in eval mode whose weights are all random, none left as the initialisation set them."""
    torch.manual_seed(0)
    network = build_sr(name, scale, SMALL | args).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def swinir_network(name):
    encoder = SwinIREncoder(12, (2,), 2, 8)
    return LMF(encoder, DECODERS[name](8), 2)


#################################################################################
#                              Sizes and interface                              #
#################################################################################


@every_network
@pytest.mark.parametrize("scale", [1, 2, 2.7, 30])
@pytest.mark.parametrize("lr_size", [(1, 1), (5, 8)])
def test_output_has_the_rounded_size(name, scale, lr_size):
    expected = tuple(round(scale * side) for side in lr_size)
    assert random_network(name, scale)(torch.rand(2, 3, *lr_size)).shape == (2, 3, *expected)


@every_network
def test_any_size_can_be_asked_for(name):
    network = random_network(name)
    for size in ((7, 9), (7, 270), (21, 10), (100, 50)):
        sr = network(torch.rand(1, 3, 7, 9), size)
        assert sr.shape == (1, 3, *size) and sr.isfinite().all()
    with pytest.raises(ValueError, match="height 6"):
        network(torch.rand(1, 3, 7, 9), (6, 9))


@pytest.mark.parametrize("name", ["lm_liif", "lm_ciaosr"])
@pytest.mark.parametrize("lr_size", [(3, 5), (8, 16), (9, 17)])
def test_swinir_takes_any_size(name, lr_size):
    assert swinir_network(name)(torch.rand(2, 3, *lr_size)).shape == (2, 3, 2 * lr_size[0], 2 * lr_size[1])


@every_network
def test_gradient_reaches_every_input_pixel_and_every_parameter(name):
    network = random_network(name).train()
    lr = torch.rand(1, 3, 6, 7, requires_grad=True)
    network(lr).square().sum().backward()
    assert lr.grad.abs().min() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@every_network
def test_saved_weights_give_the_same_image(name, tmp_path):
    network = random_network(name, 2.5)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    twin = build_sr(network.spec["name"], 2.5, network.spec["args"]).eval()
    twin.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    lr = torch.rand(1, 3, 9, 8)
    assert torch.equal(twin(lr), network(lr))
    assert torch.equal(copy.deepcopy(network)(lr), network(lr))


def test_a_checkpoint_rebuilds_the_network_with_its_fractional_scale(tmp_path):
    network = random_network("lm_ciaosr", 2.5, weight_compat=True)
    spec = network.spec
    save_network(tmp_path / "sr.pth", "sr", spec["name"], spec["args"], network.state_dict(), {})
    twin = load_sr(tmp_path / "sr.pth")
    lr = torch.rand(1, 3, 6, 7)
    assert twin.spec == spec and twin.scale == 2.5 and twin.decoder.weight_compat
    assert torch.equal(twin(lr), network(lr))


@every_network
def test_tail_is_the_render_mlp_which_comes_last(name):
    network = build_sr(name, 2, SMALL)
    tail = {id(p) for p in network.tail.parameters()}
    marks = [id(p) in tail for p in network.parameters()]
    assert any(marks) and marks == sorted(marks)


@every_network
def test_bfloat16_autocast_stays_close_to_float32(name):
    network = random_network(name)
    lr = torch.rand(1, 3, 12, 10)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(lr)
    assert (low.float() - network(lr)).abs().max() < 0.03


@pytest.mark.gpu
@every_network
def test_cuda_agrees_with_the_cpu(name):
    network, lr = random_network(name), torch.rand(1, 3, 12, 10)
    assert (network.cuda()(lr.cuda(), (30, 41)).cpu() - network.cpu()(lr, (30, 41))).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("name", "scale", "args", "message"),
    [
        ("lm_lte", 0.5, {}, "scale is 0.5; use a number from 1 to 30"),
        ("lm_lte", 31, {}, "scale is 31"),
        ("lm_lte", float("nan"), {}, "scale is nan"),
        ("lm_lte", "4", {}, "scale is '4'"),
        ("lm_lte", True, {}, "scale is True"),
        ("lm_lte", 4, {"encoder": "vgg"}, "edsr_baseline, rdn, swinir"),
        (
            "lm_liif",
            4,
            {"weight_compat": True},
            "unknown argument 'weight_compat'; it takes encoder, n_blocks, n_feats",
        ),
        ("lm_ciaosr", 4, {"weight_compat": 1}, "must be of type bool"),
    ],
)
def test_a_wrong_request_is_explained(name, scale, args, message):
    with pytest.raises(ValueError, match=message):
        build_sr(name, scale, args)


#################################################################################
#                              What must be the same                            #
#################################################################################


@every_network
@pytest.mark.parametrize("size", [None, (50, 60)])
def test_training_and_evaluation_give_the_same_image(name, size):
    for network in (random_network(name), swinir_network(name)):
        lr = torch.rand(2, 3, 9, 8)
        assert torch.equal(network.train()(lr, size), network.eval()(lr, size))


@every_network
def test_the_number_of_queries_at_once_does_not_matter(name):
    network, lr = random_network(name).double(), torch.rand(2, 3, 5, 6, dtype=torch.double)
    whole = network(lr, (13, 17))
    for network.max_queries in (1, 17, 50, 10_000):
        assert (network(lr, (13, 17)) - whole).abs().max() < 1e-13


@every_network
def test_single_pixels_are_those_of_the_image(name):
    """Training looks at pixels, each image at its own scale; evaluation at rasters."""
    network, lr = random_network(name).double(), torch.rand(2, 3, 6, 5, dtype=torch.double)
    sizes = [(10, 19), (33, 7)]
    rows = torch.tensor([[0, 9, 4, 4], [32, 1, 16, 0]])
    columns = torch.tensor([[18, 0, 7, 8], [3, 6, 0, 0]])
    colours = network.train().sample(lr, rows, columns, torch.tensor(sizes))
    for i, size in enumerate(sizes):
        image = network.eval()(lr[i : i + 1], size)[0]
        assert (colours[i].T - image[:, rows[i], columns[i]]).abs().max() < 1e-13


@every_network
def test_a_batch_gives_what_its_images_give(name):
    network, lr = random_network(name).double(), torch.rand(3, 3, 7, 6, dtype=torch.double)
    singles = torch.cat([network(image[None], (20, 15)) for image in lr])
    assert (network(lr, (20, 15)) - singles).abs().max() < 1e-13


@pytest.mark.parametrize("name", ["lm_liif", "lm_lte"])
def test_radius_is_exact(name):
    network = build_sr(name, 3, SMALL).double()
    with torch.no_grad():
        for parameter in network.parameters():  # positive and small: nothing cancels or dies
            parameter.uniform_(0.1, 1).div_(parameter[0].numel())
    assert network.capabilities.receptive_radius == 4 + 2
    centre = network.capabilities.receptive_radius + 2
    lr = torch.rand(1, 3, 2 * centre + 1, 2 * centre + 1, dtype=torch.double, requires_grad=True)
    cell = slice(3 * centre, 3 * centre + 3)
    network(lr)[..., cell, cell].sum().backward()
    rows = lr.grad.abs().sum((0, 1, 3)).nonzero()
    assert centre - rows.min() == rows.max() - centre == network.capabilities.receptive_radius


def test_radius_is_unknown_where_attention_reaches_everywhere():
    assert build_sr("lm_lte", 2).capabilities.receptive_radius == 34 + 2
    assert [build_sr(name, 2, SMALL).capabilities.receptive_radius for name in ("lm_ciaosr", "lm_hybrid")] == [
        None,
        None,
    ]
    assert swinir_network("lm_lte").capabilities.receptive_radius is None


@pytest.mark.parametrize("name", ["lm_liif", "lm_lte"])
def test_tiles_of_conditional_execution_give_the_dense_image(name):
    network, lr = random_network(name, 4), torch.rand(1, 3, 40, 36)
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 2, 3] = mask[0, 4, 4] = True
    with torch.no_grad():
        dense = network(lr)
        sr = run_on_tiles(network, lr, mask, 8, None, torch.zeros_like(dense))
    pixels = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None, :160, :144].expand_as(sr)
    assert (sr - dense)[pixels].abs().max() < 1e-5
    assert (sr[~pixels] == 0).all()


#################################################################################
#                                    Rendering                                  #
#################################################################################


@every_network
@given(st.integers(1, 9), st.integers(1, 9), st.floats(1, 8), st.floats(1, 8))
@settings(max_examples=10)
def test_without_residual_the_image_is_bilinear_or_grey(name, height, width, down, across):
    network = random_network(name)
    torch.nn.init.zeros_(network.tail.rgb.weight)
    torch.nn.init.zeros_(network.tail.rgb.bias)
    lr = torch.rand(1, 3, height, width)
    size = max(height, int(down * height)), max(width, int(across * width))
    for training in (True, False):
        sr = network.train(training)(lr, size)
        expected = F.interpolate(lr, size, mode="bilinear") if network.decoder.skip else torch.full_like(sr, 0.5)
        assert (sr - expected).abs().max() < 1e-6


@every_network
def test_modulations_are_one_plus_scale_then_shift_and_the_rest_is_the_code(name):
    network, lr = random_network(name), torch.rand(2, 3, 4, 5)
    cell = relative_cell((8, 10), (4, 5), lr)
    depth, latent = network.decoder.depth, network.encode(lr, cell)
    raw = network.decoder.latent(network.encoder(2 * lr - 1), cell).flatten(0, 1)
    for k in range(depth):
        scales, shifts = raw[:, 16 * k : 16 * k + 16], raw[:, 16 * (depth + k) : 16 * (depth + k) + 16]
        assert torch.equal(latent.modulations[k], torch.cat((1 + scales, shifts), dim=1))
    assert torch.equal(latent.codes, raw[:, 32 * depth :])
    assert torch.allclose(latent.strength().flatten(), raw[:, 16 * depth : 32 * depth].abs().mean(1))


@every_network
@pytest.mark.parametrize("size", [(14, 21), (17, 40), (35, 21)])
def test_rendering_follows_the_description(name, size):
    """Coordinates in [-1, 1], `grid_sample` and weights of swapped areas, written down once more."""
    network = random_network(name).double()
    lr = torch.rand(1, 3, 7, 6, dtype=torch.double)
    cell = relative_cell(size, (7, 6), lr)
    latent = network.encode(lr, cell)
    maps = torch.cat((latent.modulations.transpose(0, 1).flatten(1), latent.codes), dim=1).T.reshape(1, -1, 7, 6)
    y, x = ((torch.arange(side, dtype=torch.double) * 2 + 1) / side - 1 for side in size)
    coordinates = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)[None]  # (1, H, W, 2), row first
    predictions, areas = [], []
    for dy in (-1, 1):
        for dx in (-1, 1):
            shift = torch.tensor([dy / 7, dx / 6], dtype=torch.double)
            moved = (coordinates + shift + 1e-9).clamp(-1 + 1e-9, 1 - 1e-9)
            found = F.grid_sample(maps, moved.flip(-1), mode="nearest", align_corners=False)
            sides = torch.tensor([7, 6], dtype=torch.double)
            centre = (((moved + 1) * sides / 2).floor() * 2 + 1) / sides - 1
            relative = (coordinates - centre) * sides
            areas.append((relative[..., 0] * relative[..., 1]).abs() + 1e-14)
            found = found[0].permute(1, 2, 0).flatten(0, 1)
            table, code = found.split((32 * network.decoder.depth, latent.codes.shape[1]), dim=1)
            hidden = network.decoder.render_input(code[None], relative.flatten(1, 2), cell)[0]
            for k, layer in enumerate(network.tail.hidden):
                factor, offset = table[:, 32 * k : 32 * k + 16], table[:, 32 * k + 16 : 32 * k + 32]
                hidden = (factor * layer(hidden) + offset).relu()
            predictions.append(network.tail.rgb(hidden).T.reshape(1, 3, *size))
    areas = torch.stack(areas[::-1])
    expected = sum(p * a / areas.sum(0) for p, a in zip(predictions, areas, strict=True))
    if network.decoder.skip:
        expected = expected + F.interpolate(2 * lr - 1, size, mode="bilinear")
    # At the centre of the last LR pixel all areas vanish, and those weights say nothing.
    assert (network(lr, size) - (expected + 1) / 2).abs()[..., areas.sum(0)[0] > 1e-6].max() < 1e-6


def test_beyond_the_trained_scale_pixels_are_shown_as_large_as_there():
    """Only the cell knows the scale: the image at x8 passes through the colours that x4 would have there."""
    network, lr = random_network("lm_lte").double(), torch.rand(1, 3, 5, 5, dtype=torch.double)
    cell = relative_cell((20, 20), (5, 5), lr)
    assert torch.equal(cell, relative_cell((40, 40), (5, 5), lr))
    axis = place_all(40, 5, lr)
    sr = network.render_raster(network.encode(lr, cell), axis, axis, cell)
    assert torch.equal(sr, network(lr, (40, 40)))


#################################################################################
#                                Published counts                               #
#################################################################################


@pytest.mark.parametrize(
    ("name", "args", "published"),
    [
        ("lm_liif", {}, 165_651),
        ("lm_liif", {"encoder": "rdn"}, 165_651),
        ("lm_liif", {"encoder": "swinir"}, 179_571),
        ("lm_lte", {}, 270_467),
        ("lm_ciaosr", {}, 734_998),
    ],
)
def test_decoders_have_the_published_number_of_parameters(name, args, published):
    assert count_parameters(build_sr(name, 4, args).decoder) == published


@pytest.mark.parametrize(
    ("encoder", "published"), [("edsr_baseline", 1_490_907 - 24), ("rdn", 22_244_419), ("swinir", 11_873_511)]
)
def test_lm_lte_has_the_published_number_of_parameters(encoder, published):
    """24: mean shifts that the authors' EDSR carries and does not use."""
    assert count_parameters(build_sr("lm_lte", 4, {"encoder": encoder})) == published


@pytest.mark.parametrize(
    ("name", "scale", "published"),
    [
        ("lm_liif", 1, 9.80), ("lm_liif", 2, 10.94), ("lm_liif", 4, 15.49), ("lm_liif", 8, 33.72),
        ("lm_lte", 1, 15.89), ("lm_lte", 2, 17.35), ("lm_lte", 4, 23.19), ("lm_lte", 8, 46.54),
    ],
)  # fmt: skip
def test_decoders_have_the_published_number_of_macs(name, scale, published):
    """For 320 x 180 LR pixels, 1e9. The cell's part is computed once and not per pixel: up to 0.6 % less."""
    network = build_sr(name, scale, {"n_blocks": 1})
    network.max_queries = 2**24
    macs = count_macs_at(network, 180, 320) - count_macs_at(network.encoder, 180, 320)
    pixels, queries = 180 * 320, 4 * 180 * 320 * scale**2
    if name == "lm_liif":
        exact = pixels * (9 * 64 * 208 + 208 * 208) + queries * (20 * 16 + 5 * 16 * 16 + 16 * 3)
    else:
        exact = pixels * (2 * 9 * 64 * 128 + 128 * 288 + 288 * 288) + queries * (8 * 16 * 16 + 16 * 3)
    assert macs == pytest.approx(exact, rel=1e-5)
    assert 0.994 * published < macs / 1e9 <= published + 0.005


def test_lm_ciaosr_has_the_published_number_of_macs():
    """249e9 at x1 with the products of cross-scale attention; without them the paper's plot shows about 86 x 2^30."""
    network = build_sr("lm_ciaosr", 1, {"n_blocks": 1})
    macs = count_macs_at(network, 180, 320) - count_macs_at(network.encoder, 180, 320)
    sides = [[min(stop + 1, side) - max(start - 1, 0) for start, stop in tiles(side)] for side in (180, 320)]
    pixels = [(height + height % 2) * (width + width % 2) for height in sides[0] for width in sides[1]]
    products = sum(n * n // 4 * (9 * 32 + 36 * 64) for n in pixels)
    assert macs / 1e9 == pytest.approx(249, abs=1)
    assert (macs - products) / 2**30 == pytest.approx(86, abs=2)
