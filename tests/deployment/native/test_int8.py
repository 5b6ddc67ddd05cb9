"""The int8 kernel gives the bits of its definition in PyTorch, on every instruction set, and refuses what is wrong."""

from __future__ import annotations

import ctypes
import functools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import deployment.native_execution as native_execution
from deployment.native.build import NativeError
from deployment.native_execution import NativeNetwork
from models import build_sr
from models.edsr_int8 import Int8Conv
from models.tiling.run_patches import expand_mask
from tests.deployment.native.int8_libraries import WAYS, int8_library
from utils.errors import UserError


@pytest.fixture(scope="module", params=WAYS)
def library(request, tmp_path_factory):
    native_of.cache_clear()
    if request.param == "native":
        return request.getfixturevalue("native_int8_library")
    return int8_library(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def kernel(library, monkeypatch):
    monkeypatch.setattr(native_execution, "find_library", lambda *_: library)


@functools.cache
def integer_edsr(scale=2, maps=16, blocks=1, seed=0):
    """Random weights and steps; the last layer copies maps, so that its fp32 sums are exact too."""
    generator = torch.Generator().manual_seed(seed)
    network = build_sr("edsr_int8", scale, {"n_blocks": blocks, "n_feats": maps}).eval()
    with torch.no_grad():
        network.head[0].weight.normal_(0, 0.5, generator=generator)
        network.head[0].bias.normal_(0, 0.5, generator=generator)
        for layer in network.modules():
            if isinstance(layer, Int8Conv):
                layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape, generator=generator))
                layer.weight_step.uniform_(1e-4, 4e-4, generator=generator)
                layer.bias.normal_(0, 0.3, generator=generator)
                layer.input_step.fill_(0.01)  # bytes reach to about 1.3 and 2.5: many values are clipped
                layer.check()
        tail = network.tail[0]
        tail.weight.zero_()
        for output in range(tail.out_channels):
            tail.weight[output, output % maps, 1, 1] = 1.0
        tail.bias.zero_()
    return network


@functools.cache
def native_of(network):
    return NativeNetwork(network, torch.float32)


def definition(network, lr, mask, patch, halo, canvas):
    """Every layer is computed everywhere and kept on the dilated patches only."""
    region = F.max_pool2d(expand_mask(mask, patch, *lr.shape[-2:]).float(), 2 * halo + 1, 1, halo)
    first = x = network.head(lr * region) * region
    for block in network.body[:-1]:
        inner = F.relu(block.body[0](x)) * region
        x = (block.body[2](inner) + x) * region
    sr = network.tail((network.body[-1](x) + first) * region)
    return torch.where(expand_mask(mask, patch * network.scale, *canvas.shape[-2:]), sr, canvas)


@st.composite
def cases(draw):
    patch = draw(st.integers(3, 16))
    batch, height, width = draw(st.integers(1, 2)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    mask = torch.rand(batch, -(-height // patch), -(-width // patch), generator=generator) < share
    return torch.rand(batch, 3, height, width, generator=generator), mask, patch


def test_patches_are_bit_for_bit_what_the_definition_says(kernel):
    @given(
        case=cases(), scale=st.integers(2, 4), maps=st.sampled_from([16, 48, 80]), blocks=st.integers(1, 2),
        halo=st.integers(0, 9), bright=st.sampled_from([1.0, 30.0]), channels_last=st.booleans(),
    )  # fmt: skip
    @settings(deadline=None, max_examples=30)
    def check(case, scale, maps, blocks, halo, bright, channels_last):
        lr, mask, patch = case
        lr = bright * lr
        network = integer_edsr(scale, maps, blocks)
        native = native_of(network)
        if native.workspace is not None:
            with torch.inference_mode():
                native.workspace.fill_(math.nan)  # nothing may be read before it is written
        canvas = torch.rand(lr.shape[0], 3, lr.shape[2] * scale, lr.shape[3] * scale)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        own = canvas.clone().contiguous(memory_format=layout)
        result = native.run(lr.contiguous(memory_format=layout), mask, patch, halo, own)
        assert result is own and torch.equal(result, definition(network, lr, mask, patch, halo, canvas))

    check()


def test_everywhere_it_is_the_network(kernel):
    network, lr = integer_edsr(3, 64, 2), torch.rand(2, 3, 19, 41)
    assert torch.equal(native_of(network)(lr), network(lr))


def test_amx_is_taken_where_it_is_there(library, kernel, request):
    """Were it not, equal bytes would say nothing; only the emulation counts."""
    if request.node.callspec.params["library"] != "amx":
        pytest.skip("no emulated AMX in this library")
    native, count = native_of(integer_edsr(3, 64, 2)), ctypes.CDLL(library).count_tile_products
    before = count()
    native(torch.rand(1, 3, 5, 37))
    assert count() - before > 100


def test_a_full_halo_gives_patches_of_the_dense_image(kernel):
    network, lr = integer_edsr(2, 32, 2), torch.rand(2, 3, 37, 45)
    mask, canvas = torch.rand(2, 5, 6) < 0.4, torch.zeros(2, 3, 74, 90)
    expected = torch.where(expand_mask(mask, 16, 74, 90), native_of(network)(lr), canvas)
    assert torch.equal(native_of(network).run(lr, mask, 8, None, canvas), expected)


def test_bytes_saturate_at_both_ends(kernel):
    """Weights of one sign and the brightest image: the largest sums that 80 maps can have, and clipped bytes."""
    network = build_sr("edsr_int8", 2, {"n_blocks": 1, "n_feats": 80}).eval()
    with torch.no_grad():
        network.head[0].weight.fill_(1.0)
        network.head[0].bias.zero_()
        first, second, last = (m for m in network.modules() if isinstance(m, Int8Conv))
        first.weight.fill_(127)
        second.weight[::2] = -127
        second.weight[1::2] = 127
        for layer in (first, second, last):
            layer.input_step.fill_(1e-3)
            layer.check()
        last.weight[:, 0, 1, 1] = 1
        network.tail[0].weight.zero_()
        network.tail[0].weight[:, 0, 1, 1] = 1.0
    assert second.sum_type == torch.float64  # 9 * 80 * 255 * 127 is beyond what fp32 counts
    for lr in (torch.ones(1, 3, 9, 14), -torch.ones(1, 3, 9, 14), torch.full((1, 3, 9, 14), 1e30)):
        sr = native_of(network)(lr)
        assert sr.isfinite().all() and torch.equal(sr, network(lr))


def test_batches_threads_and_parts_change_no_bit(kernel):
    network, threads = integer_edsr(2, 32, 1), torch.get_num_threads()
    native, lr, mask = native_of(network), torch.rand(3, 3, 37, 45), torch.rand(3, 5, 6) < 0.4
    canvas = torch.rand(3, 3, 74, 90)
    result = native.run(lr, mask, 8, 1, canvas.clone())
    assert torch.equal(result, native.run(lr, mask, 8, 1, canvas.clone(), max_pixels=37 * 45))
    assert torch.equal(result.bfloat16(), native.run(lr, mask, 8, 1, canvas.bfloat16()))
    try:
        for number in (2, 7):
            torch.set_num_threads(number)
            assert torch.equal(result, native.run(lr, mask, 8, 1, canvas.clone()))
    finally:
        torch.set_num_threads(threads)


def test_maps_fill_vectors(kernel):
    with pytest.raises(NativeError, match="multiple of 16 feature maps, not 20"):
        NativeNetwork(build_sr("edsr_int8", 2, {"n_blocks": 1, "n_feats": 20}).eval(), torch.float32)


@pytest.mark.parametrize("way", ["dpbusd", "pack"])
def test_a_wrong_result_at_start_up_is_refused(kernel, monkeypatch, way):
    import deployment.native_int8 as native_int8

    pack = native_int8._integers

    def spoiled(conv, lane):
        tensors = pack(conv, lane)
        return tensors | ({"offset": tensors["offset"] + 900} if way == "pack" else {"weight": -tensors["weight"]})

    monkeypatch.setattr(native_int8, "_integers", spoiled)
    with pytest.raises(NativeError, match="would differ by"):
        NativeNetwork(integer_edsr(2, 16, 1), torch.float32)


# Five steps: head, the two of a block, the one after it, tail. Canvases: 4 channels, then 16; the last two hold bytes.
WRONG = [
    (None, {"step_bytes": 8}, "step_bytes is 8; it must be"),
    (None, {"canvases": 4}, "step 1: rounded is 4; it must be -1 to 3"),
    (0, {"rounded": 2}, "step 0: it writes a canvas of the other type"),
    (0, {"target": 3}, "step 0: it writes a canvas of the other type"),
    (1, {"rounded": -1}, "step 1: it writes nothing"),
    (1, {"rounded": 3}, "step 1: source and target are one canvas"),
    (1, {"target": -3}, "step 1: target is -3; it must be -2 to 4"),
    (1, {"inputs": 8}, "step 1: inputs is 8; it must be 16"),
    (1, {"weight_bytes": 9 * 16 * 16 - 1}, "step 1: weight_bytes is 2303; it must be at least"),
    (1, {"scale_bytes": 63}, "step 1: scale_bytes is 63; it must be at least 64"),
    (1, {"offset_bytes": 60}, "step 1: offset_bytes is 60; it must be at least 64"),
    (1, {"scale": None}, "step 1: scale is null"),
    (1, {"offset": None}, "step 1: offset is null"),
    (2, {"residual": 3}, "step 2: its residual is no fp32 canvas"),
    (2, {"residual": 5}, "step 2: residual is 5; it must be 0 to 4"),
    (2, {"reach": 7}, "step 2: reach is 7; it must be 0 to 1"),
    (3, {"source": 4}, None),  # another canvas that was computed: harmless
    (4, {"outputs": 16}, "step 4: outputs is 16; it must be 12"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "fields", "message"), [pytest.param(*case, id=str(case[1])) for case in WRONG])
def test_the_entry_point_trusts_nobody(kernel, step, fields, message):
    native, canvas = NativeNetwork(integer_edsr(), torch.float32), torch.full((2, 3, 18, 26), 7.0)
    call = native.kernel

    def spoiled(job, steps):
        for name, value in fields.items():
            setattr(job if step is None else steps[step], name, value)
        call(job, steps)

    native.kernel = spoiled
    arguments = torch.rand(2, 3, 9, 13), torch.ones(2, 3, 4, dtype=torch.bool), 4, 1, canvas
    if message is None:
        native.run(*arguments)
        return
    with pytest.raises(UserError, match=f"^native kernel: {message}"):
        native.run(*arguments)
    assert (canvas == 7).all()


def test_zero_points_are_checked(kernel):
    native = NativeNetwork(integer_edsr(), torch.float32)
    for canvas, zero, message in ((0, 0, "canvas 0: zero is 0; it must be -1"), (4, 256, "canvas 4: zero is 256")):
        before, native.kernel.zero[canvas] = native.kernel.zero[canvas], zero
        with pytest.raises(UserError, match=message):
            native(torch.rand(1, 3, 9, 13))
        native.kernel.zero[canvas] = before
