"""Cross-scale attention and the attention of LM-CiaoSR and of the hybrid over the windows around an LR pixel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.lmf.cross_scale_attention import CrossScaleAttention, tiles
from models.lmf.lm_ciaosr import CiaoSRDecoder
from models.lmf.lm_hybrid import encode_position


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2), (7, 10), (49, 97)])
def test_any_size_is_attended(size):
    attention = CrossScaleAttention(8)
    assert attention(torch.randn(2, 8, *size)).shape == (2, 8, *size)


def test_attention_follows_the_description():
    """Patch by patch: scores with the patches at half size, and a weighted sum of the patches of twice the side."""
    attention = CrossScaleAttention(4).double()
    x = torch.randn(1, 4, 6, 8, dtype=torch.double)
    query = F.pad(attention.query(x), (1, 1, 1, 1))[0]
    key = F.pad(attention.key(F.avg_pool2d(x, 2)), (1, 1, 1, 1))[0]  # at half size, bilinear is the mean of 2x2
    value = F.pad(attention.value(x), (2, 2, 2, 2))[0]
    canvas = torch.zeros(4, 12 + 4, 16 + 4, dtype=torch.double)
    for i in range(6):
        for j in range(8):
            patch = query[:, i : i + 3, j : j + 3]
            places = [(k, m) for k in range(3) for m in range(4)]
            patches = [key[:, k : k + 3, m : m + 3] for k, m in places]
            scores = torch.stack([10 * (patch * other).sum() / other.norm() for other in patches]).softmax(0)
            for score, (k, m) in zip(scores, places, strict=True):
                large = value[:, 2 * k : 2 * k + 6, 2 * m : 2 * m + 6]
                canvas[:, 2 * i : 2 * i + 6, 2 * j : 2 * j + 6] += score * large
    expected = attention.down(canvas[None, :, 2:-2, 2:-2]) / 6
    assert torch.allclose(attention(x), expected, atol=1e-12)


def test_large_images_are_attended_in_tiles():
    assert tiles(47) == [(0, 47)] and tiles(95) == [(0, 95)]
    assert tiles(150) == [(0, 48), (48, 96), (96, 150)]
    attention = CrossScaleAttention(4)
    x = torch.randn(1, 4, 100, 40)
    whole = attention(x)
    assert torch.allclose(whole[..., :48, :], attention.attend(x[..., :49, :])[..., :48, :], atol=1e-6)
    assert torch.allclose(whole[..., 48:, :], attention.attend(x[..., 47:, :])[..., 1:, :], atol=1e-6)


def test_windows_lie_at_the_corners_of_their_pixel():
    decoder = CiaoSRDecoder(2)
    features = torch.arange(2 * 5 * 6.0).reshape(1, 2, 5, 6)
    around = F.unfold(features, 3, padding=1).transpose(1, 2)
    pixel = 2 * 6 + 3
    for row in (0, 1):
        for column in (0, 1):
            window = decoder.window(around, row, column)[0, pixel].reshape(2, 2, 2)
            assert torch.equal(window, features[0, :, 1 + row : 3 + row, 2 + column : 4 + column])
            place = decoder.place(row, column, features, torch.tensor([[1.0, 0.5]]))
            assert place.flatten().tolist() == [1 - 2 * row, 1 - 2 * column, 1.0, 0.5]


def test_weight_compat_keeps_the_arithmetic_of_the_training_code():
    decoder = CiaoSRDecoder(2, weight_compat=True)
    assert not decoder.skip
    around = torch.arange(18.0)[None, None]  # seen as (3, 3, 2)
    assert decoder.window(around, 0, 1).flatten().tolist() == [6, 7, 8, 9, 12, 13, 14, 15]
    place = decoder.place(0, 1, torch.zeros(1, 2, 4, 8), torch.ones(1, 2))
    assert place.flatten().tolist() == [0.25, -0.125, 1, 1]


def test_position_code_has_eight_octaves():
    code = encode_position(torch.tensor([0.5, -0.25], dtype=torch.double))
    assert code.shape == (32,)
    assert torch.allclose(
        code[:3], torch.tensor([1.0, 0.0, 0.0], dtype=torch.double), atol=1e-12
    )  # sin of pi/2, pi, ...
    assert torch.allclose(code[16:18], torch.tensor([-(0.5**0.5), -1.0], dtype=torch.double))  # of -pi/4, -pi/2
