"""The native kernel gives what its definition in PyTorch gives; where it cannot be had, everything goes on without."""

from __future__ import annotations

import functools
import math
import time

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import deployment.native.build as native_build
import deployment.native_execution as native_execution
import deployment.prepare as prepared
from deployment.native.build import NativeError
from deployment.native_execution import NativeNetwork
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.mask_policy import parse_policy
from models.masker import Masker
from models.tiling.execution import TileOptions, expand_mask, run_on_tiles

PATCH = 8


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The library of this machine; built here if it was not at set-up."""
    try:
        return native_build.find_library()
    except NativeError:
        pass
    try:
        return native_build.build(tmp_path_factory.mktemp("native"))
    except NativeError as error:
        pytest.skip(f"no native kernel: {error}")


@pytest.fixture
def kernel(library, monkeypatch):
    monkeypatch.setattr(native_execution, "find_library", lambda: library)


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
    if dtype == torch.bfloat16 and "avx512_bf16" not in native_build.cpu_flags():
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
        halo = None if extra is None else network.capabilities.radius + extra
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


def test_what_does_not_fit_is_an_error(kernel):
    native, lr, mask = native_of(random_edsr(), torch.float32), torch.rand(1, 3, 16, 24), torch.ones(1, 2, 3)
    with pytest.raises(ValueError, match=r"must be \(1, 2, 3\)"):
        native.run(lr, mask[:, :1].bool(), PATCH, 1, torch.empty(1, 3, 64, 96))
    with pytest.raises(ValueError, match="canvas"):
        native.run(lr, mask.bool(), PATCH, 1, torch.empty(1, 3, 64, 95))
    with pytest.raises(ValueError, match=r"float64; use torch\.float32"):
        native.run(lr, mask.bool(), PATCH, 1, torch.empty(1, 3, 64, 96, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"mask is torch\.float32; use torch\.bool"):
        native.run(lr, mask, PATCH, 1, torch.empty(1, 3, 64, 96))


@pytest.mark.parametrize(
    ("network", "dtype", "reason"),
    [
        (random_edsr(tail="staged"), torch.float32, "tail 'single' only"),
        (build_sr("srresnet", 4, {"n_blocks": 1, "n_feats": 16}).eval(), torch.float32, "EDSR"),
        (random_edsr(maps=20), torch.float32, "multiple of 16"),
        (random_edsr(), torch.float16, "float16"),
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


#################################################################################
#                             The library and its absence                        #
#################################################################################


@pytest.fixture
def avx512(monkeypatch):
    monkeypatch.setattr(native_build, "cpu_flags", lambda: native_build.NEEDED)


def test_a_library_of_another_source_or_cpu_is_not_loaded(tmp_path, avx512, monkeypatch):
    with pytest.raises(NativeError, match=r"not built: python -m deployment.native\.build"):
        native_build.find_library(tmp_path)
    path = native_build.library_path(tmp_path)
    path.touch()
    assert native_build.find_library(tmp_path) == path
    with monkeypatch.context() as other_cpu:
        other_cpu.setattr(native_build, "cpu_flags", lambda: native_build.NEEDED | {"avx10"})
        with pytest.raises(NativeError, match="another source or on another CPU"):
            native_build.find_library(tmp_path)
    changed = tmp_path / native_build.SOURCE.name
    changed.write_text(native_build.SOURCE.read_text() + "\n")
    monkeypatch.setattr(native_build, "SOURCE", changed)
    with pytest.raises(NativeError, match="another source or on another CPU"):
        native_build.find_library(tmp_path)


def test_without_avx512_nothing_is_built_or_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(native_build, "cpu_flags", lambda: native_build.NEEDED - {"avx512bw"})
    for function in (native_build.build, native_build.find_library):
        with pytest.raises(NativeError, match="no AVX-512"):
            function(tmp_path)
    assert not list(tmp_path.iterdir())


def test_cpu_flags_are_read_from_the_system(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512f fma\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert native_build.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx512f", "fma"}
    assert native_build.cpu_flags(tmp_path / "missing") == frozenset()


def test_a_missing_or_failing_compiler_is_a_reason(tmp_path, avx512, monkeypatch):
    monkeypatch.setattr(native_build, "COMPILER", "no-such-compiler")
    with pytest.raises(NativeError, match="no-such-compiler"):
        native_build.build(tmp_path)
    monkeypatch.setattr(native_build, "COMPILER", "false")
    with pytest.raises(NativeError, match="false: failed"):
        native_build.build(tmp_path)
    assert not list(tmp_path.iterdir())


def test_building_replaces_stale_libraries(tmp_path, avx512, monkeypatch):
    stale = tmp_path / f"{native_build.SOURCE.stem}-0123.so"
    stale.touch()

    def compiler(command, **_):
        native_build.Path(command[command.index("-o") + 1]).touch()
        return native_build.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(native_build.subprocess, "run", compiler)
    path = native_build.build(tmp_path)
    assert [entry for entry in tmp_path.iterdir()] == [path]
    assert not stale.exists()


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
