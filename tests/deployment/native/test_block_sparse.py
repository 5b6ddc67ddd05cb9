"""The kernel itself: what its entry points refuse, and that under sanitizers it touches nothing but its own memory."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest
import torch

import deployment.native.build as native_build
import deployment.native_execution as native_execution
from deployment.native_execution import NativeNetwork
from models import build_sr
from tests.deployment.native.recording import RecordingKernel
from tests.deployment.portable_kernel import AMX, HERE, SANITIZED, compile_portable, skip_without_sanitizers
from utils.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture
def network_of(portable_library, monkeypatch):
    """(feature maps, dtype, scale) -> a network run by the portable kernel."""
    monkeypatch.setattr(native_execution, "find_library", lambda: portable_library)
    monkeypatch.setattr(native_execution, "cpu_flags", lambda: native_build.NEEDED | {"avx512_bf16"})

    def build(maps=16, dtype=torch.float32, scale=2):
        torch.manual_seed(0)
        network = build_sr("edsr", scale, {"n_blocks": 1, "n_feats": maps, "tail": "single"}).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return NativeNetwork(network, dtype)

    return build


def array_of(kind, *values):
    return (kind * len(values))(*values)


#################################################################################
#                               The entry points                                 #
#################################################################################

# Job: 2 images of 3 x 9 x 13, patches of 4, scale 2, four canvases of 4, 16, 16, 16 channels, five steps.
WRONG_JOBS = [
    ({"job_bytes": 8}, "job_bytes is 8; it must be"),
    ({"step_bytes": 8}, "step_bytes is 8; it must be"),
    ({"batch": -1}, "batch is -1; it must be 0 to 16777216"),
    ({"batch": 3}, "mask_bytes is 24; it must be at least 36"),
    ({"height": 0}, "height is 0; it must be 1 to 16777216"),
    ({"width": (1 << 24) + 1}, "width is 16777217; it must be 1 to 16777216"),
    ({"height": 2**31 - 1}, "height is 2147483647"),
    ({"rows": 2}, "rows is 2; it must be 3"),
    ({"columns": 5}, "columns is 5; it must be 4"),
    ({"patch": 0}, "patch is 0; it must be 1 to"),
    ({"scale": 0}, "scale is 0; it must be 1 to 64"),
    ({"scale": 65}, "scale is 65; it must be 1 to 64"),
    ({"scale": 3}, "hr_bytes is 11232; it must be at least"),
    ({"hr_bf16": 2}, "hr_bf16 is 2; it must be 0 to 1"),
    ({"threads": 0}, "threads is 0; it must be 1 to 4096"),
    ({"threads": 5000}, "threads is 5000; it must be 1 to 4096"),
    ({"canvases": 33}, "canvases is 33; it must be 1 to 32"),
    ({"canvases": 3}, "step 2: target is 3; it must be -1 to 2"),
    ({"steps": 0}, "steps is 0; it must be 1 to"),
    ({"mask": None}, "mask is null; it must point to aligned memory"),
    ({"lr": None}, "lr is null"),
    ({"lr": 0x1001}, "lr is not aligned"),
    ({"hr": 0x1002}, "hr is not aligned"),
    ({"mask_bytes": 23}, "mask_bytes is 23; it must be at least 24"),
    ({"lr_bytes": 2807}, "lr_bytes is 2807; it must be at least 2808"),
    ({"hr_bytes": 11231}, "hr_bytes is 11231; it must be at least 11232"),
    ({"lr_stride": array_of(ctypes.c_int64, 351, 117, -13, 1)}, "dimension 2: lr_stride is -13; it must be 0 to"),
    ({"hr_stride": array_of(ctypes.c_int64, 1 << 62, 468, 26, 1)}, "dimension 0: hr_stride is"),
    ({"channels": array_of(ctypes.c_int32, 3, 16, 16, 16)}, "canvas 0: channels is 3; it must be 4"),
    ({"channels": array_of(ctypes.c_int32, 4, 0, 16, 16)}, "canvas 1: channels is 0; it must be 1 to 65536"),
    ({"channels": array_of(ctypes.c_int32, 4, 17, 16, 16)}, "canvas 1: canvas_bytes is"),
    ({"channels": None}, "channels is null"),
    ({"canvas": None}, "canvas is null"),
    ({"canvas": array_of(ctypes.c_void_p, 0, 0, 0, 0)}, "canvas 0: memory is null"),
    ({"canvas_bytes": None}, "canvas_bytes is null"),
    ({"canvas_bytes": array_of(ctypes.c_int64, 5279, 99999, 99999, 99999)}, "canvas 0: canvas_bytes is 5279;"),
    ({"reach": None}, "reach is null"),
    ({"reach": array_of(ctypes.c_int32, 1, -1, 1, 1)}, "canvas 1: reach is -1; it must be 0 to 65536"),
    ({"reach": array_of(ctypes.c_int32, 0, 1, 1, 1)}, "step 0: reach is 1; it must be 0"),
]  # fmt: skip
WRONG_STEPS = [
    (0, {"source": 4}, "step 0: source is 4; it must be 0 to 3"),
    (0, {"source": 2}, "step 0: it reads a canvas that no step before it computes"),
    (0, {"inputs": 3}, "step 0: inputs is 3; it must be 4"),
    (0, {"outputs": 32}, "step 0: outputs is 32; it must be 16"),
    (1, {"target": 1}, "step 1: source and target are one canvas; they must differ"),
    (1, {"target": -2}, "step 1: target is -2; it must be -1 to 3"),
    (1, {"target": 0}, "step 1: outputs is 16; it must be 4"),
    (1, {"target": -1}, "step 1: outputs is 16; it must be 12"),
    (2, {"residual": 9}, "step 2: residual is 9; it must be 0 to 3"),
    (2, {"residual": 0}, "step 2: outputs is 16; it must be 4"),
    (2, {"reach": -1}, "step 2: reach is -1; it must be 0 to"),
    (2, {"reach": 7}, "step 2: reach is 7; it must be 0 to 1"),
    (3, {"reach": 0}, "step 4: it reads further than a step before it computed"),
    (4, {"reach": 1}, "step 4: reach is 1; it must be 0"),
    (4, {"residual": 1}, "step 4: outputs is 12; it must be 16"),
    (2, {"weight": None}, "step 2: weight is null"),
    (2, {"bias": None}, "step 2: bias is null"),
    (2, {"weight_bytes": 9215}, "step 2: weight_bytes is 9215; it must be at least 9216"),
    (2, {"bias_bytes": 63}, "step 2: bias_bytes is 63; it must be at least 64"),
]


class SpoiledKernel:
    """Changes fields of a job, or of one of its steps, on the way to the kernel."""

    def __init__(self, kernel, fields, step=None):
        self.kernel, self.fields, self.step = kernel, fields, step

    def __call__(self, job, steps):
        for name, value in self.fields.items():
            pointed = dict(job._fields_).get(name) if self.step is None else None
            if isinstance(value, ctypes.Array) and not issubclass(pointed, ctypes.Array):
                value = ctypes.cast(value, pointed)
            setattr(job if self.step is None else steps[self.step], name, value)
        self.kernel(job, steps)


@pytest.mark.parametrize(
    ("step", "fields", "message"),
    [pytest.param(*case, id=case[-1][:50]) for case in [(None, *job) for job in WRONG_JOBS] + WRONG_STEPS],
)
def test_the_entry_points_trust_nobody(network_of, step, fields, message):
    native, canvas = network_of(), torch.full((2, 3, 18, 26), 7.0)
    arguments = torch.rand(2, 3, 9, 13), torch.ones(2, 3, 4, dtype=torch.bool), 4, 1, canvas
    native.kernel = SpoiledKernel(native.kernel, fields, step)
    with pytest.raises(UserError, match=f"^native kernel: {message}"):
        native.run(*arguments)
    assert (canvas == 7).all()


def test_feature_maps_come_in_vectors(network_of):
    native = network_of()

    class FifteenMaps(SpoiledKernel):
        def __call__(self, job, steps):
            job.channels[1] = steps[1].inputs = steps[0].outputs = 15
            super().__call__(job, steps)

    native.kernel = FifteenMaps(native.kernel, {})
    with pytest.raises(UserError, match="step 0: outputs is not a multiple of 16"):
        native.run(torch.rand(1, 3, 9, 13), torch.ones(1, 3, 4, dtype=torch.bool), 4, 1, torch.rand(1, 3, 18, 26))


#################################################################################
#                                   Sanitizers                                   #
#################################################################################


def corners(rows, columns):
    """One mask for each corner of the grid."""
    masks = torch.zeros(4, rows, columns, dtype=torch.bool)
    for mask, (row, column) in zip(masks, [(0, 0), (0, -1), (-1, 0), (-1, -1)], strict=True):
        mask[row, column] = True
    return masks


def sized(height, width, patch, kind, batch=1):
    """(LR images, mask, patch)."""
    rows, columns = -(-height // patch), -(-width // patch)
    if kind == "corners":
        mask = corners(rows, columns)
    else:
        mask = torch.rand(batch, rows, columns) < {"empty": 0.0, "full": 1.0, "half": 0.5}[kind]
    return torch.rand(len(mask), 3, height, width), mask, patch


SIZES = [
    (1, 1, 1, "full"), (1, 1, 8, "full"), (1, 7, 3, "full"), (7, 1, 3, "half"), (1, 13, 1, "half"), (2, 3, 2, "full"),
    (13, 17, 8, "corners"), (11, 23, 5, "half", 3), (13, 17, 4, "empty", 2), (13, 17, 4, "full", 2),
    (16, 24, 8, "half", 2),    (31, 5, 7, "corners"), (19, 19, 19, "full"), (19, 19, 20, "full"), (9, 29, 3, "half", 2),
]  # fmt: skip
LAYOUTS = {
    "dense": lambda shape: torch.rand(shape),
    "channels_last": lambda shape: torch.rand(shape).contiguous(memory_format=torch.channels_last),
    "inside": lambda shape: torch.rand(shape[0], 4, shape[2] + 3, 2 * shape[3] + 1)[:, 1:, 2:-1, 1::2],
}


def record(network_of, folder, sizes, **options):
    """Files with calls of all these sizes, with every halo and layout in turn."""
    folder.mkdir(exist_ok=True)
    files = []
    for kind, dtype in DTYPES.items():
        native = network_of(dtype=dtype, **options)
        native.kernel = RecordingKernel(native.kernel, kind == "bfloat16", folder, f"{kind}-{options.get('maps')}")
        for number, size in enumerate(sizes):
            lr, mask, patch = sized(*size)
            layout = list(LAYOUTS.values())[number % 3]
            lr = layout(lr.shape).copy_(lr)
            canvas = layout((len(lr), 3, native.scale * lr.shape[2], native.scale * lr.shape[3]))
            canvas = canvas.bfloat16() if number % 2 else canvas
            native.run(lr, mask, patch, (0, 1, None, 10**9)[number % 4], canvas)
        native(torch.rand(2, 3, 5, 7))
        files += native.kernel.files
    assert len(files) == 2 * (len(sizes) + 1)
    return files


@pytest.fixture(scope="module", params=[[], AMX], ids=["vectors", "amx"])
def sanitized(request, tmp_path_factory) -> Path:
    """The replaying program and the kernel with both sanitizers; by AMX it has to give the bits of vectors."""
    folder = tmp_path_factory.mktemp("sanitized")
    skip_without_sanitizers(folder)
    return compile_portable(folder / "replay", *SANITIZED, *request.param, str(HERE / "replay.cpp"))


def replay(program, way, files):
    """The finished program; no more than four threads, however many a spoiled call asks for."""
    options = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1", "OMP_THREAD_LIMIT": "4"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | options
    return subprocess.run([program, way, *files], env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiling with sanitizers, on a busy machine
@pytest.mark.parametrize(
    ("maps", "scale", "sizes"), [(16, 4, SIZES), (32, 3, SIZES[5:8]), (48, 2, SIZES[5:8]), (80, 2, SIZES[6:9])]
)
def test_recorded_calls_are_clean_under_sanitizers(network_of, sanitized, tmp_path, maps, scale, sizes):
    """Odd sizes and masks, halos, layouts, 1, 2, 3 and 7 threads, the same bits each time; and no memory left."""
    files = record(network_of, tmp_path, sizes, maps=maps, scale=scale)
    done = replay(sanitized, "replay", files)
    assert done.returncode == 0, done.stderr[:6000]
    assert done.stdout.startswith(f"{len(files)} calls")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whatever_the_entry_points_accept_is_clean_under_sanitizers(network_of, sanitized, tmp_path):
    """Numbers and pointers spoiled one and two at a time: refused, or harmless."""
    files = record(network_of, tmp_path, [(1, 1, 1, "full"), (5, 4, 3, "half", 2)], maps=16)
    done = replay(sanitized, "mutate", [file for file in files if not file.stem.endswith("-2")])
    assert done.returncode == 0, done.stderr[:6000]
    calls, harmless, refused = (int(word) for word in done.stdout.split() if word.isdigit())
    assert calls == 4 and harmless > 1000 and refused > 10_000


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("array", ["mask", "lr", "hr", "weight", "bias", "canvas"])
def test_the_sanitizers_see_an_access_beyond_each_array(network_of, sanitized, tmp_path, array):
    """A call that says more memory than there is: were it not seen, the tests above would say nothing."""
    [file, *_] = record(network_of, tmp_path, [(5, 7, 3, "full")], maps=16)
    done = replay(sanitized, f"cut-{array}", [file])
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr and "block_sparse.cpp" in done.stderr, done.stderr[:2000]
