"""utils/resize.py: MATLAB's bicubic."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.sr_pairs import benchmark_pairs
from tests.drawn import BENCHMARK_SIZES, photograph
from tests.imresize import imresize
from utils.resize import cubic_matrix, resize

sizes = st.integers(1, 70)


def keys(x: float) -> float:
    """Keys' kernel, written once more from the paper."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def test_doubling_takes_the_textbook_weights() -> None:
    matrix = cubic_matrix(8, 16)
    # Output sample 6 lies at input position 2.75.
    expected = np.array([keys(2.75 - k) for k in range(8)])
    np.testing.assert_allclose(matrix[6], expected, atol=1e-7)
    # The first output lies at -0.25; samples -1 and -2 mirror 0 and 1.
    border = np.zeros(8)
    for k, sample in ((-2, 1), (-1, 0), (0, 0), (1, 1)):
        border[sample] += keys(-0.25 - k)
    np.testing.assert_allclose(matrix[0], border, atol=1e-7)


def test_halving_widens_the_kernel() -> None:
    matrix = cubic_matrix(16, 8)
    expected = np.array([keys((k - 8.5) / 2) for k in range(16)])
    np.testing.assert_allclose(matrix[4], expected / expected.sum(), atol=1e-7)
    assert np.count_nonzero(cubic_matrix(16, 8, antialias=False)[4]) == 4


@given(sizes, sizes, st.booleans())
@settings(max_examples=80, deadline=None)
def test_rows_sum_to_one_and_flipping_commutes(n: int, m: int, antialias: bool) -> None:
    matrix = cubic_matrix(n, m, antialias)
    assert matrix.shape == (m, n) and matrix.dtype == np.float32 and not matrix.flags.writeable
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-5)
    assert cubic_matrix(n, m, antialias) is matrix


@given(sizes, sizes, sizes, sizes, st.booleans(), st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_resize_is_two_matrix_products(h: int, w: int, height: int, width: int, antialias: bool, channels: int) -> None:
    image = np.random.default_rng(h * 71 + w).normal(size=(h, w, channels))
    expected = np.einsum("yh,xw,hwc->yxc", cubic_matrix(h, height, antialias), cubic_matrix(w, width, antialias), image)
    result = resize(image, height, width, antialias)
    assert result.dtype == image.dtype and result.flags.c_contiguous and result.flags.writeable
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_agrees_with_torch_and_pillow_inside() -> None:
    """Both take a = -0.5 with antialiasing, and other borders."""
    image = np.random.default_rng(0).random((64, 96, 3), dtype=np.float32)
    ours = resize(image, 16, 24)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    theirs = F.interpolate(tensor, (16, 24), mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours[2:-2, 2:-2], theirs[2:-2, 2:-2], atol=1e-5)
    eight_bit = (image * 255).astype(np.uint8)
    pillow = np.asarray(Image.fromarray(eight_bit).resize((24, 16), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(pillow - resize(eight_bit, 16, 24))[2:-2, 2:-2].max() <= 1  # Pillow resizes columns first


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_agrees_with_matlabs_images(shared_data, scale: int) -> None:
    """The LR images of the benchmarks were made by MATLAB; its sums are in double precision, so ties can differ."""
    for name, lr, hr in benchmark_pairs(shared_data("sr_bench") / "Set5", scale):
        ours = resize(hr, *lr.shape[:2])
        wrong = ours[2:-2, 2:-2] != lr[2:-2, 2:-2]
        assert wrong.mean() < 0.005, name


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_agrees_with_imresize_written_from_its_description(scale: int) -> None:
    for number, size in enumerate(BENCHMARK_SIZES):
        hr = photograph(*size, seed=number)
        lr = imresize(hr, 1 / scale)
        for ours, theirs in ((resize(hr, *lr.shape[:2]), lr), (resize(lr, *size), imresize(lr, scale))):
            assert np.mean(ours != theirs) < 0.003 and np.abs(ours.astype(int) - theirs).max() <= 2


def test_an_edge_halved_by_hand() -> None:
    """Keys' kernel at odd quarters: the taps of imresize(x, 0.5) are -3, -9, 29 and 111 of 256, and mirrored."""
    taps = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    np.testing.assert_allclose(cubic_matrix(24, 12)[6, 9:17], taps, atol=1e-7)
    line = np.repeat(np.array([0, 255], np.uint8), 12)
    image = np.stack([line] * 24)[..., None]
    # 255 times 17 and 239 of 256; what lies outside 0..255 is clipped.
    assert resize(image, 12, 12)[5, :, 0].tolist() == [0] * 5 + [17, 238] + [255] * 5
    assert imresize(image, 0.5)[5, :, 0].tolist() == [0] * 5 + [17, 238] + [255] * 5


def test_uint8_rounds_half_up_after_each_axis() -> None:
    pair = np.array([[[10], [11]]], np.uint8)
    assert resize(pair, 1, 1).item() == 11
    quarters = np.array([[[10], [10]], [[10], [11]]], np.uint8)  # rows first: 10 and 10.5, then 10.5
    assert resize(quarters, 1, 1).item() == 11 and resize(quarters.astype(np.float32), 1, 1).item() == 10.25
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    result = resize(edge, 16, 16)
    assert result.dtype == np.uint8 and result.min() == 0 and result.max() == 255
    assert resize(edge.astype(np.float32), 16, 16).max() > 255, "floating point is not clipped"


def test_the_axis_that_shrinks_most_comes_first() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    columns_first = resize(resize(image, 40, 10), 20, 10)
    assert np.array_equal(resize(image, 20, 10), columns_first)
    assert not np.array_equal(resize(resize(image, 20, 40), 20, 10), columns_first)


def test_constant_images_and_same_size_stay() -> None:
    for value in (0, 1, 127, 254, 255):
        assert np.all(resize(np.full((31, 17, 3), value, np.uint8), 9, 40) == value)
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    same = resize(image, 7, 5)
    assert np.array_equal(same, image) and not np.shares_memory(same, image)


def test_input_is_not_written_to_and_may_be_a_view() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    before = image.copy()
    flipped = resize(image[::-1, ::-1], 10, 15)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(flipped[::-1, ::-1], resize(image, 10, 15))


def test_threads_do_not_change_a_bit() -> None:
    code = (
        "import numpy as np, hashlib; from utils.resize import resize;"
        "x = np.random.default_rng(0).random((257, 311, 3), dtype=np.float32);"
        "print(hashlib.sha256(resize(x, 100, 333).tobytes()).hexdigest())"
    )
    root = Path(__file__).resolve().parents[2]
    digests = set()
    for threads in ("1", "4"):
        variables = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=root, env=os.environ | variables, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("image", "size", "message"),
    [
        (np.zeros((4, 4), np.uint8), (2, 2), "shape"),
        (np.zeros((0, 4, 3), np.uint8), (2, 2), "empty"),
        (np.zeros((4, 4, 3), np.int32), (2, 2), "int32"),
        (np.zeros((4, 4, 3), np.uint8), (0, 2), "at least 1"),
    ],
)
def test_bad_arguments(image: np.ndarray, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resize(image, *size)
    with pytest.raises(ValueError, match="at least 1"):
        cubic_matrix(4, 0)
