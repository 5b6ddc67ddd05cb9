"""Execution on patches equals the dense network: any shape, scale, patch size and mask."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from models import build_sr
from models.tiling.run_patches import TileOptions, chunk_sizes, expand_mask, run_everywhere, run_on_tiles

NETWORKS = {
    "bicubic": {},
    "fsrcnn": {"d": 4, "s": 2, "m": 1},
    "edsr": {"n_blocks": 1, "n_feats": 4},
    "srresnet": {"n_blocks": 1, "n_feats": 4},
}


def random_network(name, scale, args):
    torch.manual_seed(0)
    network = build_sr(name, scale, args).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def dense_fusion(network, lr, mask, patch, canvas):
    """The definition, pixel by pixel."""
    rows = torch.arange(canvas.shape[2]) // (patch * network.scale)
    columns = torch.arange(canvas.shape[3]) // (patch * network.scale)
    return torch.where(mask[:, None][:, :, rows][..., columns], network(lr), canvas)


class Recorder(nn.Module):
    """Passes images on to a network and notes their shapes."""

    def __init__(self, network):
        super().__init__()
        self.network, self.scale, self.shapes = network, network.scale, []
        self.capabilities = network.capabilities

    def forward(self, lr):
        self.shapes.append(tuple(lr.shape))
        return self.network(lr)


@st.composite
def cases(draw):
    patch = draw(st.integers(4, 16))
    batch, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 70)), draw(st.integers(1, 70))
    shape = (batch, -(-height // patch), -(-width // patch))
    kind = draw(st.sampled_from(["empty", "full", "single", "random", "sparse"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    mask = torch.rand(shape, generator=generator) < {"empty": 0, "full": 1, "sparse": 0.05}.get(kind, 0.4)
    if kind == "single":
        mask = torch.zeros(shape, dtype=torch.bool)
        mask.view(-1)[draw(st.integers(0, mask.numel() - 1))] = True
    lr = torch.rand(batch, 3, height, width, generator=generator)
    return lr, mask, patch


@given(
    case=cases(), name=st.sampled_from(sorted(NETWORKS)), scale=st.integers(2, 4),
    extra=st.none() | st.integers(0, 3), max_pixels=st.sampled_from([1, 900, 1 << 18]),
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_a_full_halo_is_exact(case, name, scale, extra, max_pixels):
    lr, mask, patch = case
    network = random_network(name, scale, NETWORKS[name])
    halo = None if extra is None else network.capabilities.receptive_radius + extra
    canvas = torch.rand(lr.shape[0], 3, lr.shape[2] * scale, lr.shape[3] * scale)
    with torch.no_grad():
        expected = dense_fusion(network, lr, mask, patch, canvas)
        result = run_on_tiles(network, lr, mask, patch, halo, canvas.clone(), TileOptions(max_pixels=max_pixels))
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= 1e-5


@given(case=cases(), halo=st.integers(0, 6))
@settings(deadline=None, max_examples=80)
def test_any_halo_leaves_other_patches_alone_and_treats_images_one_by_one(case, halo):
    lr, mask, patch = case
    network = random_network("edsr", 2, NETWORKS["edsr"])
    canvas = torch.rand(lr.shape[0], 3, lr.shape[2] * 2, lr.shape[3] * 2)
    with torch.no_grad():
        result = run_on_tiles(network, lr, mask, patch, halo, canvas.clone())
        singles = [run_on_tiles(network, lr[i : i + 1], mask[i : i + 1], patch, halo, canvas[i : i + 1].clone())
                   for i in range(len(lr))]  # fmt: skip
    pixels = expand_mask(mask, patch * 2, *canvas.shape[-2:]).expand_as(canvas)
    assert torch.equal(result[~pixels], canvas[~pixels])
    assert (result - torch.cat(singles)).abs().max() <= 1e-6 * max(1, result.abs().max())


def test_all_selected_patches_of_the_batch_run_in_one_call():
    network = Recorder(random_network("edsr", 2, NETWORKS["edsr"]))
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 3, 1] = mask[1, 2, 2] = True
    run_on_tiles(network, torch.rand(2, 3, 32, 32), mask, 8, 2, torch.rand(2, 3, 64, 64))
    assert network.shapes == [(3, 3, 12, 12)]
    network.shapes.clear()
    options = TileOptions(max_pixels=2 * 144)
    run_on_tiles(network, torch.rand(2, 3, 32, 32), mask, 8, 2, torch.rand(2, 3, 64, 64), options)
    assert network.shapes == [(2, 3, 12, 12), (1, 3, 12, 12)]


def test_nothing_runs_where_nothing_is_selected():
    network, canvas = Recorder(random_network("edsr", 2, NETWORKS["edsr"])), torch.rand(1, 3, 20, 20)
    result = run_on_tiles(
        network, torch.rand(1, 3, 10, 10), torch.zeros(1, 2, 2, dtype=torch.bool), 8, 2, canvas.clone()
    )
    assert network.shapes == [] and torch.equal(result, canvas)


def test_no_image_costs_more_than_a_dense_run():
    network = Recorder(random_network("edsr", 2, NETWORKS["edsr"]))
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = True
    mask[2] = True
    run_on_tiles(network, torch.rand(3, 3, 32, 32), mask, 8, 4, torch.rand(3, 3, 64, 64))
    assert network.shapes == [(1, 3, 32, 32), (1, 3, 16, 16)]  # the full image as a whole, the other one's patch


def test_gradient_flows_through_the_tiles():
    network = random_network("edsr", 2, NETWORKS["edsr"])
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    lr = torch.rand(1, 3, 32, 32, requires_grad=True)
    run_on_tiles(network, lr, mask, 8, 2, torch.zeros(1, 3, 64, 64)).sum().backward()
    rows, columns = lr.grad.abs().sum((0, 1)).nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 17, 14, 25)
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("canvas_type", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_bfloat16_autocast_keeps_the_type_of_the_canvas(canvas_type, share):
    torch.manual_seed(0)
    network, lr, mask = (
        random_network("edsr", 2, NETWORKS["edsr"]),
        torch.rand(2, 3, 33, 40),
        torch.rand(2, 5, 5) < share,
    )
    canvas = torch.rand(2, 3, 66, 80).to(canvas_type)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        result = run_on_tiles(network, lr, mask, 8, None, canvas.clone())
        expected = dense_fusion(network, lr, mask, 8, canvas)
    assert result.dtype == canvas_type
    assert (result.float() - expected.float()).abs().max() < 0.03


def test_expand_mask_repeats_and_crops():
    mask = torch.tensor([[[1, 0], [0, 1]]])
    assert expand_mask(mask, 2, 3, 4)[0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]


@given(case=cases(), halo=st.integers(0, 4), merge=st.booleans())
@settings(deadline=None, max_examples=60)
def test_training_sees_what_is_executed(case, halo, merge):
    lr, mask, patch = case
    network = random_network("edsr", 2, NETWORKS["edsr"])
    options = TileOptions(overhead=50.0, merge=merge)
    with torch.no_grad():
        everywhere = run_everywhere(network, lr, mask, patch, halo, options)
        for part in (mask, ~mask):
            executed = run_on_tiles(network, lr, part, patch, halo, torch.zeros_like(everywhere), options)
            pixels = expand_mask(part, patch * 2, *everywhere.shape[-2:]).expand_as(everywhere)
            assert (everywhere - executed)[pixels].abs().max() <= 1e-6 if pixels.any() else True


def test_training_on_tiles_reaches_every_weight():
    network = random_network("edsr", 2, NETWORKS["edsr"])
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 1:3] = True
    run_everywhere(network, torch.rand(1, 3, 32, 32), mask, 8, 2).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@given(st.integers(0, 5000), st.integers(1, 300))
def test_chunks_are_few_and_of_few_sizes(count, most):
    sizes = chunk_sizes(count, most)
    assert sum(sizes) == count and max(sizes, default=0) <= most
    allowed = set(range(1, 9)) | {2**power for power in range(13)} | {3 * 2**power for power in range(12)}
    assert set(sizes) <= allowed
    assert len(sizes) <= 8 + 2 * count / most


def test_no_seam_along_patch_borders():
    """Gradient energy of the fused image along patch borders, against columns elsewhere, for the default halo."""
    from skimage.data import astronaut

    from models.tiling.tile_plan import choose_halo

    photograph = torch.from_numpy(astronaut()[:160, :160].copy()).permute(2, 0, 1)[None].float() / 255
    network = build_sr("edsr", 4, {"n_blocks": 8, "n_feats": 32, "tail": "single"}).eval()
    network.load_state_dict(load_file(Path(__file__).parents[3] / "weights" / "edsr_8x32_x4.safetensors"))
    patch = 32
    with torch.no_grad():
        dense = network(photograph)
        parts = torch.zeros_like(dense)
        number = torch.arange(25).view(1, 5, 5)
        for turn in range(5):  # all at once they would be run densely
            parts = run_on_tiles(network, photograph, number % 5 == turn, patch, choose_halo(patch), parts)
    border = torch.arange(1, 5) * patch * 4
    energy = [(image[..., border] - image[..., border - 1]).square().mean() for image in (parts, dense)]
    assert energy[0] / energy[1] == pytest.approx(1, abs=0.02)
    loss = 10 * torch.log10((parts - dense).square().mean()).item()
    assert loss < -45, "the short halo changes little"
