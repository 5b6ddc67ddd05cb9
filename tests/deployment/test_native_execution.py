"""The native kernel gives what its definition in PyTorch gives; where it cannot be had, everything goes on without."""

from __future__ import annotations

import functools
import math
import time
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import deployment.native.build as native_build
import deployment.native_execution as native_execution
import deployment.prepare as prepared
from deployment.native.build import NativeError
from deployment.native.interface import OUT_OF_MEMORY
from deployment.native_execution import NativeNetwork
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.mask_policy import parse_policy
from models.masker import Masker
from models.tiling.run_patches import TileOptions, expand_mask, run_on_tiles
from utils.errors import UserError

PATCH = 8


@pytest.fixture(scope="module", params=["avx512", "portable"])
def library(request, tmp_path_factory):
    """The library of this machine, built here if it was not at set-up; and the one in portable vectors."""
    native_of.cache_clear()
    if request.param == "portable":
        return request.getfixturevalue("portable_library")
    try:
        return native_build.find_library()
    except NativeError:
        pass
    try:
        return native_build.build(folder=tmp_path_factory.mktemp("native"))
    except NativeError as error:
        pytest.skip(f"no native kernel: {error}")


@pytest.fixture
def kernel(library, request, monkeypatch):
    monkeypatch.setattr(native_execution, "find_library", lambda: library)
    if request.node.callspec.params["library"] == "portable":
        monkeypatch.setattr(native_execution, "cpu_flags", lambda: native_build.NEEDED | {"avx512_bf16"})


@functools.cache
def random_edsr(scale=4, maps=16, blocks=1, res_scale=1.0, tail="single", mean=False):
    torch.manual_seed(0)
    args = {"n_blocks": blocks, "n_feats": maps, "res_scale": res_scale, "tail": tail, "div2k_mean": mean}
    network = build_sr("edsr", scale, args).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.requires_grad_(False)


@functools.cache
def native_of(network, dtype):
    """One object for all cases: whatever it keeps between calls must not matter."""
    if dtype == torch.bfloat16 and "avx512_bf16" not in native_execution.cpu_flags():
        pytest.skip("this CPU has no bfloat16 instructions")
    return NativeNetwork(network, dtype)


def definition(network, lr, mask, patch, halo, canvas):
    """Every layer is computed everywhere and kept on the dilated patches only."""
    pixels = expand_mask(mask, patch, *lr.shape[-2:]).float()
    region = F.max_pool2d(pixels, 2 * halo + 1, 1, halo)
    mean = 0 if network.mean is None else network.mean
    first = x = network.head((lr - mean) * region) * region
    for block in network.body[:-1]:
        inner = F.relu(block.body[0](x)) * region
        x = torch.add(x, block.body[2](inner), alpha=block.res_scale) * region
    sr = network.tail((first + network.body[-1](x)) * region) + mean
    return torch.where(expand_mask(mask, patch * network.scale, *canvas.shape[-2:]), sr, canvas)


def changed(name, module):
    """An EDSR with another module in one place."""
    network = deepcopy(random_edsr())
    network.set_submodule(name, module)
    return network.eval()


def close(result, expected, tolerance):
    assert (result - expected).abs().max() <= tolerance * max(1.0, expected.abs().max())


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


#################################################################################
#                              What does not fit                                 #
#################################################################################


def call_of(lr=(2, 3, 16, 24), mask=(2, 2, 3), canvas=(2, 3, 64, 96), **others):
    """Arguments of `run`; shapes stand for tensors."""
    tensors = {
        "lr": torch.rand(lr) if isinstance(lr, tuple) else lr,
        "mask": torch.ones(mask, dtype=torch.bool) if isinstance(mask, tuple) else mask,
        "canvas": torch.rand(canvas) if isinstance(canvas, tuple) else canvas,
    }
    return tensors | {"patch": PATCH, "halo": 1} | others


def without_memory(tensor):
    """The same shape, but its memory was given back."""
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": (2, 1, 16, 24)}, r"LR images are \(2, 1, 16, 24\); .* needs \(B, 3, h, w\)"),
        ({"lr": (2, 4, 16, 24)}, r"LR images are \(2, 4, 16, 24\)"),
        ({"lr": (3, 16, 24)}, r"LR images are \(3, 16, 24\)"),
        ({"lr": (2, 3, 0, 24), "mask": (2, 0, 3), "canvas": (2, 3, 0, 96)}, "LR images are .* sides of 1 to 16777216"),
        ({"lr": (2, 3, 16, 0), "mask": (2, 2, 0), "canvas": (2, 3, 64, 0)}, "LR images are .* sides of 1 to 16777216"),
        ({"lr": torch.ones(()).expand(1, 3, 1, (1 << 24) + 1)}, "LR images are .* sides of 1 to 16777216"),
        ({"lr": torch.ones(()).expand(1, 3, (1 << 32) + 16, 24)}, "LR images are .* sides of 1 to 16777216"),
        ({"lr": torch.zeros(2, 3, 16, 24, dtype=torch.uint8)}, r"LR images: torch\.uint8 given; use torch\.float32"),
        ({"lr": torch.zeros(2, 3, 16, 24, dtype=torch.cfloat)}, r"LR images: torch\.complex64 given"),
        ({"lr": torch.rand(2, 3, 16, 24, device="meta")}, "LR images: on meta, .* needs ordinary memory"),
        ({"lr": torch.rand(2, 3, 16, 24).to_sparse()}, r"LR images: on cpu, torch\.sparse_coo"),
        ({"lr": torch.rand(2, 3, 16, 24).to_mkldnn()}, r"LR images: on cpu, torch\._mkldnn"),
        ({"lr": torch._neg_view(torch.rand(2, 3, 16, 24))}, "LR images: .* negated lazily"),
        ({"lr": torch.rand(2, 3, 16, 24).numpy()}, r"LR images: ndarray given; use a torch\.Tensor"),
        ({"lr": torch.rand(2, 3, 16, 24, requires_grad=True)}, "LR images: requires a gradient"),
        ({"lr": without_memory(torch.rand(2, 3, 16, 24))}, "LR images: its memory was given back"),
        ({"mask": (2, 1, 3)}, r"mask: \(2, 1, 3\) given; .* must be \(2, 2, 3\)"),
        ({"mask": (1, 2, 3)}, r"mask: \(1, 2, 3\) given"),
        ({"mask": (2, 1, 2, 3)}, r"mask: \(2, 1, 2, 3\) given"),
        ({"mask": torch.ones(2, 2, 3)}, r"mask: torch\.float32 given; use torch\.bool"),
        ({"mask": torch.ones(2, 2, 3, dtype=torch.uint8)}, r"mask: torch\.uint8 given; use torch\.bool"),
        ({"mask": torch.ones(2, 2, 3, dtype=torch.bool, device="meta")}, "mask: on meta"),
        ({"mask": [[[True] * 3] * 2] * 2}, r"mask: list given; use a torch\.Tensor"),
        ({"mask": without_memory(torch.ones(2, 2, 3, dtype=torch.bool))}, "mask: its memory was given back"),
        ({"canvas": (2, 3, 64, 95)}, r"canvas: \(2, 3, 64, 95\) given; .* must be \(2, 3, 64, 96\)"),
        ({"canvas": (2, 3, 16, 24)}, r"canvas: \(2, 3, 16, 24\) given"),
        ({"canvas": (1, 3, 64, 96)}, r"canvas: \(1, 3, 64, 96\) given"),
        ({"canvas": (2, 1, 64, 96)}, r"canvas: \(2, 1, 64, 96\) given"),
        ({"canvas": torch.rand(2, 3, 64, 96).double()}, r"canvas: torch\.float64 given; use torch\.float32 or"),
        ({"canvas": torch.rand(2, 3, 64, 96).half()}, r"canvas: torch\.float16 given"),
        ({"canvas": torch.rand(2, 3, 64, 96, device="meta")}, "canvas: on meta"),
        ({"canvas": torch._neg_view(torch.rand(2, 3, 64, 96))}, "canvas: .* negated lazily"),
        ({"canvas": torch.rand(2, 3, 64, 96, requires_grad=True)}, "canvas: requires a gradient"),
        ({"canvas": torch.rand(2, 1, 64, 96).expand(2, 3, 64, 96)}, "elements of the canvas share memory"),
        ({"canvas": torch.rand(9, 64, 96).as_strided((2, 3, 64, 96), (6144, 6144, 96, 1))}, "share memory"),
        ({"canvas": without_memory(torch.rand(2, 3, 64, 96))}, "canvas: its memory was given back"),
        ({"patch": 0}, "patch is 0; it must be a whole number of at least 1"),
        ({"patch": -8}, "patch is -8"),
        ({"patch": 8.0}, r"patch is 8\.0; it must be a whole number"),
        ({"patch": None}, "patch is None"),
        ({"patch": True}, "patch is True"),
        ({"patch": 16}, r"mask: \(2, 2, 3\) given; .* must be \(2, 1, 2\)"),
        ({"halo": -1}, "halo is -1; it must be a whole number of at least 0"),
        ({"halo": 1.5}, r"halo is 1\.5"),
        ({"halo": "1"}, "halo is '1'"),
        ({"max_pixels": 0}, "max_pixels is 0; it must be a whole number of at least 1"),
        ({"max_pixels": 1e6}, r"max_pixels is 1000000\.0"),
    ],
)
def test_what_does_not_fit_is_an_error(kernel, wrong, message):
    native, call = native_of(random_edsr(), torch.float32), call_of(**wrong)
    with pytest.raises(UserError, match=message):
        native.run(**call)


def test_a_refused_call_writes_nothing_and_the_next_is_as_ever(kernel):
    native, call = native_of(random_edsr(), torch.float32), call_of()
    expected, before = native.run(**call | {"canvas": call["canvas"].clone()}), call["canvas"].clone()
    for wrong in ({"halo": -1}, {"lr": call["lr"][:, :1]}, {"mask": call["mask"][:1]}):
        with pytest.raises(UserError):
            native.run(**call | wrong)
        assert torch.equal(call["canvas"], before)
    assert torch.equal(native.run(**call), expected)


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        (torch.rand(2, 1, 16, 24), r"LR images are \(2, 1, 16, 24\)"),
        (torch.rand(3, 16, 24), r"LR images are \(3, 16, 24\)"),
        (torch.rand(1, 3, 0, 24), "sides of 1 to"),
        (torch.zeros(1, 3, 16, 24, dtype=torch.int64), r"torch\.int64 given"),
        (torch.rand(1, 3, 16, 24, device="meta"), "on meta"),
    ],
)
def test_forward_refuses_the_same_images(kernel, lr, message):
    with pytest.raises(UserError, match=message):
        native_of(random_edsr(), torch.float32)(lr)


def test_no_images_are_no_work(kernel):
    native = native_of(random_edsr(), torch.float32)
    call = call_of(lr=(0, 3, 16, 24), mask=(0, 2, 3), canvas=(0, 3, 64, 96))
    assert native.run(**call) is call["canvas"]
    assert native(torch.rand(0, 3, 16, 24)).shape == (0, 3, 64, 96)


def test_large_numbers_mean_what_they_say(kernel):
    """A patch of more than the image is the image, a halo of more than the radius is exact; neither overflows."""
    network = random_edsr()
    native, lr, canvas = native_of(network, torch.float32), torch.rand(2, 3, 16, 24), torch.empty(2, 3, 64, 96)
    mask = torch.ones(2, 1, 1, dtype=torch.bool)
    for patch in (24, 1 << 31, 10**30):
        close(native.run(lr, mask, patch, 10**30, canvas.fill_(math.nan), 10**30), network(lr), 1e-5)


def test_any_layout_in_memory_gives_the_same(kernel):
    """Slices, steps, permutations, one image for all, other types: only the values count."""
    native, mask = native_of(random_edsr(), torch.float32), torch.rand(2, 2, 3) < 0.5
    lr = torch.rand(1, 3, 16, 24).bfloat16().float().expand(2, 3, 16, 24)
    expected = native.run(lr.contiguous(), mask, PATCH, 1, torch.zeros(2, 3, 64, 96))
    large = torch.zeros(2, 6, 20, 60)
    large[:, ::2, 2:18, 5:53:2] = lr
    turned = lr.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)
    for images in (lr, large[:, ::2, 2:18, 5:53:2], turned, lr.bfloat16(), lr.double()):
        assert torch.equal(native.run(images, mask, PATCH, 1, torch.zeros(2, 3, 64, 96)), expected)
    grid = torch.zeros(2, 4, 6, dtype=torch.bool)
    grid[:, ::2, 1::2] = mask
    assert torch.equal(native.run(lr, grid[:, ::2, 1::2], PATCH, 1, torch.zeros(2, 3, 64, 96)), expected)
    frame = torch.full((2, 5, 70, 200), 7.0)
    inside = frame[:, 1:4, 3:67, 2:194:2].zero_()
    native.run(lr, mask, PATCH, 1, inside)
    assert torch.equal(inside, expected)
    inside.fill_(7.0)
    assert (frame == 7).all()


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


#################################################################################
#                                  Prepared systems                              #
#################################################################################


class Checkerboard:
    """A policy that selects every second patch."""

    kind, needs_masker = "checkerboard", False

    def select(self, lr, logits, patch, content=None):
        rows, columns = -(-lr.shape[2] // patch), -(-lr.shape[3] // patch)
        return ((torch.arange(rows)[:, None] + torch.arange(columns)) % 2 == 0).expand(len(lr), -1, -1)


def system_of(halo=1):
    fast = build_sr("espcn", 4, {"n_feats": 4})
    return ConditionalSR(Masker(PATCH), fast, random_edsr(4, 16, 2), Execution(halo)).eval()


def chosen(front):
    quality = prepared.prepare_network(front.sr_quality, torch.device("cpu"), torch.float32)
    return prepared.choose_native(front.sr_quality, quality, front.patch, front.execution.halo)


def test_infer_runs_the_kernel_on_patches(kernel):
    front, lr = system_of(), torch.rand(2, 3, 29, 34)
    mask = Checkerboard().select(lr, None, PATCH)
    with torch.no_grad():
        fast = front.sr_fast(lr)
    expected = definition(front.sr_quality, lr, mask, PATCH, 1, fast).clamp(0, 1)
    front = front.with_execution(patches=NativeNetwork(front.sr_quality, torch.float32))
    close(front.infer(lr, Checkerboard()).sr, expected, 1e-5)


def test_images_above_the_memory_bound_run_on_tiles(kernel, monkeypatch):
    front, lr = system_of(halo=None), torch.rand(1, 3, 29, 34)
    expected = front.infer(lr, Checkerboard()).sr
    runner, bounded = NativeNetwork(front.sr_quality, torch.float32), TileOptions(max_pixels=29 * 34 - 1)
    monkeypatch.setattr(NativeNetwork, "run", lambda *_: pytest.fail("the kernel was called"))
    front = front.with_execution(patches=runner, tiles=bounded)
    close(front.infer(lr, Checkerboard()).sr, expected, 1e-5)


@pytest.mark.parametrize("slow", ["run", "forward"])
def test_the_kernel_is_taken_where_it_is_faster(kernel, monkeypatch, slow):
    function = getattr(NativeNetwork, slow)

    def slowed(*args):
        time.sleep(0.05)
        return function(*args)

    monkeypatch.setattr(NativeNetwork, slow, slowed)
    native, whole = chosen(system_of())
    if slow == "run":
        assert native is None
        assert "left on patches" in whole.how
    else:
        assert not isinstance(whole.network, NativeNetwork)
        assert "left on whole images" in whole.how


@pytest.mark.parametrize("fast", [(), ("patches",), ("dense",), ("patches", "dense")])
def test_the_faster_one_is_what_runs(kernel, monkeypatch, fast):
    """Where the kernel wins by the clock it is called, on patches and on whole images each for itself."""
    ms = {name: 1.0 if name in fast else 3.0 for name in ("patches", "dense")} | {"tiles": 2.0, "fused": 2.0}
    monkeypatch.setattr(prepared, "fastest_ms", lambda rivals, repeats: {name: ms[name] for name in rivals})
    calls, run, forward = [], NativeNetwork.run, NativeNetwork.forward
    native, whole = chosen(system_of())
    assert isinstance(native, NativeNetwork) == ("patches" in fast)
    assert isinstance(whole.network, NativeNetwork) == ("dense" in fast)
    system, lr = system_of(halo=None), torch.rand(2, 3, 29, 34)
    front = prepared.prepare_front(system, torch.device("cpu"), torch.float32)
    monkeypatch.setattr(NativeNetwork, "run", lambda *args: calls.append("patches") or run(*args))
    monkeypatch.setattr(NativeNetwork, "forward", lambda *args: calls.append("dense") or forward(*args))
    close(front.infer(lr, Checkerboard()).sr, system.infer(lr, Checkerboard()).sr, 1e-4)
    assert ("patches" in calls) == ("patches" in fast)
    calls.clear()
    close(front.infer(lr, parse_policy("all_quality")).sr, system.infer(lr, parse_policy("all_quality")).sr, 1e-4)
    assert ("dense" in calls) == ("dense" in fast)


def test_without_the_kernel_the_log_says_why(monkeypatch):
    def missing():
        raise NativeError("the native kernel was not built: python -m deployment.native.build")

    monkeypatch.setattr(native_execution, "find_library", missing)
    native, whole = chosen(system_of())
    assert native is None
    refused = "the native kernel was not built: python -m deployment.native.build"
    assert whole.how == f"fused oneDNN convolutions, float32, {refused}"
    lr = torch.rand(1, 3, 16, 16)
    close(whole(lr), random_edsr(4, 16, 2)(lr), 1e-4)


def test_a_prepared_system_uses_the_kernel(kernel):
    from models.detector_yolo import YoloDetector
    from models.system import ConditionalSRDetector

    system = ConditionalSRDetector(system_of(halo=None), YoloDetector("yolo11n.yaml", ["a"])).eval()
    front = prepared.prepare_system(system, torch.device("cpu"), torch.float32).front
    assert "native kernel" in front.sr_quality.how
    lr = torch.rand(2, 3, 29, 34)
    runner = NativeNetwork(system.front.sr_quality, torch.float32)
    front = front.with_execution(patches=runner)  # whatever the clock said
    for policy in ("all_quality", "all_fast", "budget=0.5"):
        close(front.infer(lr, parse_policy(policy)).sr, system.front.infer(lr, parse_policy(policy)).sr, 1e-4)
