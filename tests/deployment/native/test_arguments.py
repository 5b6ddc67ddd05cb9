"""deployment/native/arguments.py: what does not fit is an error and writes nothing; all else means what it says."""

from __future__ import annotations

import math

import pytest
import torch

from tests.deployment.native_networks import PATCH, call_of, close, native_of, random_edsr
from utils.errors import UserError


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
