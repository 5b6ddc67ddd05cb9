"""The native kernel gives what its definition in PyTorch gives; networks and results that are not so are refused."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import deployment.native_execution as native_execution
from deployment.native.build import NativeError
from deployment.native.interface import OUT_OF_MEMORY
from deployment.native_execution import NativeNetwork
from models import build_sr
from models.tiling.run_patches import TileOptions, expand_mask, run_on_tiles
from tests.deployment.native_networks import PATCH, call_of, close, definition, native_of, random_edsr


def changed(name, module):
    """An EDSR with another module in one place."""
    network = deepcopy(random_edsr())
    network.set_submodule(name, module)
    return network.eval()


@st.composite
def cases(draw):
    patch = draw(st.integers(3, 16))
    batch, height, width = draw(st.integers(1, 3)), draw(st.integers(1, 70)), draw(st.integers(1, 70))
    shape = (batch, -(-height // patch), -(-width // patch))
    kind = draw(st.sampled_from(["empty", "full", "single", "random", "sparse"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    mask = torch.rand(shape, generator=generator) < {"empty": 0, "full": 1, "sparse": 0.05}.get(kind, 0.4)
    if kind == "single":
        mask = torch.zeros(shape, dtype=torch.bool)
        mask.view(-1)[draw(st.integers(0, mask.numel() - 1))] = True
    return torch.rand(batch, 3, height, width, generator=generator), mask, patch


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_patches_are_what_the_definition_says(kernel, dtype, tolerance):
    @given(
        case=cases(), scale=st.integers(2, 4), maps=st.sampled_from([16, 32, 48, 64, 80]), blocks=st.integers(1, 2),
        res_scale=st.sampled_from([1.0, 0.1]), halo=st.integers(0, 9), mean=st.booleans(), channels_last=st.booleans(),
    )  # fmt: skip
    @settings(deadline=None, max_examples=150)
    def check(case, scale, maps, blocks, res_scale, halo, mean, channels_last):
        lr, mask, patch = case
        network = random_edsr(scale, maps, blocks, res_scale, mean=mean)
        native = native_of(network, dtype)
        if native.workspace is not None:
            with torch.inference_mode():
                native.workspace.fill_(math.nan)  # nothing may be read before it is written
        canvas = torch.rand(lr.shape[0], 3, lr.shape[2] * scale, lr.shape[3] * scale)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        own = canvas.clone().contiguous(memory_format=layout)
        result = native.run(lr.contiguous(memory_format=layout), mask, patch, halo, own)
        assert result is own
        close(result, definition(network, lr, mask, patch, halo, canvas), tolerance)

    check()


def test_a_full_halo_is_exact(kernel):
    @given(case=cases(), scale=st.integers(2, 4), extra=st.none() | st.integers(0, 3))
    @settings(deadline=None, max_examples=40)
    def check(case, scale, extra):
        lr, mask, patch = case
        network = random_edsr(scale, 16, 2)
        canvas = torch.rand(lr.shape[0], 3, lr.shape[2] * scale, lr.shape[3] * scale)
        pixels = expand_mask(mask, patch * scale, *canvas.shape[-2:])
        expected = torch.where(pixels, network(lr), canvas)
        halo = None if extra is None else network.capabilities.receptive_radius + extra
        close(native_of(network, torch.float32).run(lr, mask, patch, halo, canvas), expected, 1e-5)

    check()


@pytest.mark.parametrize("maps", [32, 64])
@pytest.mark.parametrize("halo", [0, 1, 3])
def test_isolated_patches_are_what_tiles_give(kernel, maps, halo):
    network = random_edsr(4, maps, 2)
    lr, mask = torch.rand(2, 3, 5 * PATCH, 7 * PATCH), torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[0, 1, 1] = mask[0, 1, 3] = mask[1, 3, 5] = True  # none touches another's halo or the image border
    canvas = torch.rand(2, 3, 20 * PATCH, 28 * PATCH)
    expected = run_on_tiles(network, lr, mask, PATCH, halo, canvas.clone(), TileOptions(merge=False))
    close(native_of(network, torch.float32).run(lr, mask, PATCH, halo, canvas), expected, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_forward_is_the_dense_network(kernel, dtype, tolerance):
    network, lr = random_edsr(3, 64, 2), torch.rand(2, 3, 19, 41)
    sr = native_of(network, dtype)(lr)
    assert sr.dtype == dtype
    close(sr.float(), network(lr), tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_threads_and_parts_change_no_bit(kernel, dtype):
    network, threads = random_edsr(4, 64, 1), torch.get_num_threads()
    native = native_of(network, dtype)
    lr = torch.rand(5, 3, 37, 45, generator=torch.Generator().manual_seed(1))
    mask = torch.rand(5, 5, 6, generator=torch.Generator().manual_seed(2)) < 0.4
    canvas = torch.rand(5, 3, 148, 180).to(dtype)
    result = native.run(lr, mask, PATCH, 1, canvas.clone())
    singles = [native.run(lr[i : i + 1], mask[i : i + 1], PATCH, 1, canvas[i : i + 1].clone()) for i in range(5)]
    assert torch.equal(result, torch.cat(singles))
    assert torch.equal(result, native.run(lr, mask, PATCH, 1, canvas.clone(), max_pixels=2 * 37 * 45))
    try:
        for number in (1, 2, 3, 7):
            torch.set_num_threads(number)
            assert torch.equal(result, native.run(lr, mask, PATCH, 1, canvas.clone()))
    finally:
        torch.set_num_threads(threads)


def test_a_canvas_of_another_type_is_rounded_once(kernel):
    network, lr = random_edsr(), torch.rand(1, 3, 16, 24)
    native, mask = native_of(network, torch.float32), torch.ones(1, 2, 3, dtype=torch.bool)
    sr = native.run(lr, mask, PATCH, 1, torch.empty(1, 3, 64, 96))
    assert torch.equal(sr.bfloat16(), native.run(lr, mask, PATCH, 1, torch.empty(1, 3, 64, 96, dtype=torch.bfloat16)))


def test_running_out_of_memory_in_the_kernel_is_a_memory_error(kernel, monkeypatch):
    native = native_of(random_edsr(), torch.float32)

    def failing(job, steps, message, size):
        message.value = b"out of memory"
        return OUT_OF_MEMORY

    monkeypatch.setattr(native.kernel, "function", failing)
    with pytest.raises(MemoryError, match="native kernel: out of memory"):
        native.run(**call_of())


@pytest.mark.parametrize(
    ("network", "dtype", "reason"),
    [
        (random_edsr(tail="staged"), torch.float32, "tail 'single' only"),
        (build_sr("srresnet", 4, {"n_blocks": 1, "n_feats": 16}).eval(), torch.float32, "EDSR"),
        (random_edsr(maps=20), torch.float32, "multiple of 16"),
        (random_edsr(), torch.float16, "float16"),
        (deepcopy(random_edsr()).to("meta"), torch.float32, "on the CPU, convolution 0 is on meta"),
        (changed("head.0", nn.Conv2d(3, 16, 3)), torch.float32, r"as convolution 0, not"),
        (changed("body.0.body.0", nn.Conv2d(16, 32, 3, padding=1)), torch.float32, "convolution 1"),
    ],
)
def test_other_networks_are_refused(kernel, network, dtype, reason):
    with pytest.raises(NativeError, match=reason):
        NativeNetwork(network, dtype)


def test_a_wrong_result_at_start_up_is_refused(kernel, monkeypatch):
    pack = native_execution._pack

    def spoiled(conv, factor, dtype):
        weight, *others = pack(conv, factor, dtype)
        return 1.1 * weight, *others

    monkeypatch.setattr(native_execution, "_pack", spoiled)
    with pytest.raises(NativeError, match="would differ by"):
        NativeNetwork(random_edsr(), torch.float32)


def test_a_damaged_library_is_a_reason(tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(b"not a library")
    monkeypatch.setattr(native_execution, "find_library", lambda: damaged)
    with pytest.raises(NativeError, match="cannot be loaded"):
        NativeNetwork(random_edsr(), torch.float32)
