"""Published SR networks as plain functions of a state dict, written from their papers, and random state dicts for them.

Keys and shapes are those of the authors' repositories; the functions see images in the value range of the network.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = torch.tensor([0.4488, 0.4371, 0.4040])
STAGES = {2: (2,), 3: (3,), 4: (2, 2)}
Weights = dict[str, Tensor]


def layer(name: str, outputs: int, inputs: int, kernel: int) -> Weights:
    """Random weights that neither blow up nor fade."""
    bound = 1 / math.sqrt(inputs * kernel**2)
    weight = torch.empty(outputs, inputs, kernel, kernel).uniform_(-bound, bound)
    return {f"{name}.weight": weight, f"{name}.bias": torch.empty(outputs).uniform_(-bound, bound)}


def conv(w: Weights, name: str, x: Tensor, groups: int = 1) -> Tensor:
    kernel = w[f"{name}.weight"].shape[-1]
    return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=kernel // 2, groups=groups)


def mean_shift(value_range: int, inner: str = "") -> Weights:
    eye = torch.eye(3).view(3, 3, 1, 1)
    shift = value_range * MEAN
    return {
        f"sub_mean.{inner}weight": eye, f"sub_mean.{inner}bias": -shift,
        f"add_mean.{inner}weight": eye.clone(), f"add_mean.{inner}bias": shift,
    }  # fmt: skip


# EDSR-PyTorch


def edsr(scale: int, value_range: int | None, blocks: int = 2, n: int = 8) -> Weights:
    w = mean_shift(value_range) if value_range else {}
    w |= layer("head.0", n, 3, 3)
    for i in range(blocks):
        w |= layer(f"body.{i}.body.0", n, n, 3) | layer(f"body.{i}.body.2", n, n, 3)
    w |= layer(f"body.{blocks}", n, n, 3)
    for k, factor in enumerate(STAGES[scale]):
        w |= layer(f"tail.0.{2 * k}", n * factor**2, n, 3)
    return w | layer("tail.1", 3, n, 3)


def run_edsr(w: Weights, x: Tensor, res_scale: float = 1.0, blocks: int = 2) -> Tensor:
    shifted = "sub_mean.bias" in w
    x = conv(w, "sub_mean", x) if shifted else x
    skip = x = conv(w, "head.0", x)
    for i in range(blocks):
        x = x + res_scale * conv(w, f"body.{i}.body.2", F.relu(conv(w, f"body.{i}.body.0", x)))
    x = skip + conv(w, f"body.{blocks}", x)
    for k in (0, 2):
        if f"tail.0.{k}.weight" in w:
            y = conv(w, f"tail.0.{k}", x)
            x = F.pixel_shuffle(y, math.isqrt(y.shape[1] // x.shape[1]))
    x = conv(w, "tail.1", x)
    return conv(w, "add_mean", x) if shifted else x


# CARN and CARN-M (value range 1)


def carn(groups: int | None, scales: tuple[int, ...] = (2, 3, 4), n: int = 64) -> Weights:
    """CARN-M where groups are given; one scale is named `up`, several `up2`, `up3`, `up4`."""
    w = mean_shift(1, "shifter.") | layer("entry", n, 3, 3)
    inner = n // (groups or 1)
    for block in ("b1", "b2", "b3"):
        for part in ("b1",) if groups else ("b1", "b2", "b3"):
            w |= layer(f"{block}.{part}.body.0", n, inner, 3) | layer(f"{block}.{part}.body.2", n, inner, 3)
            w |= layer(f"{block}.{part}.body.4", n, n, 1) if groups else {}
        for k in (1, 2, 3):
            w |= layer(f"{block}.c{k}.body.0", n, (k + 1) * n, 1)
    for k in (1, 2, 3):
        w |= layer(f"c{k}.body.0", n, (k + 1) * n, 1)
    for scale in scales:
        name = f"up{scale}" if len(scales) > 1 else "up"
        for k, factor in enumerate(STAGES[scale]):
            w |= layer(f"upsample.{name}.body.{3 * k}", n * factor**2, inner, 3)
    return w | layer("exit", 3, n, 3)


def run_carn(w: Weights, x: Tensor, scale: int, name: str, groups: int | None) -> Tensor:
    def residual(at: str, x: Tensor) -> Tensor:
        y = F.relu(conv(w, f"{at}.body.0", x, groups or 1))
        y = conv(w, f"{at}.body.2", y, groups or 1)
        return F.relu(x + (conv(w, f"{at}.body.4", F.relu(y)) if groups else y))

    def block(at: str, x: Tensor) -> Tensor:
        first = residual(f"{at}.b1", x)
        one = F.relu(conv(w, f"{at}.c1.body.0", torch.cat([x, first], 1)))
        second = residual(f"{at}.{'b1' if groups else 'b2'}", one)
        two = F.relu(conv(w, f"{at}.c2.body.0", torch.cat([x, first, second], 1)))
        third = residual(f"{at}.{'b1' if groups else 'b3'}", two)
        return F.relu(conv(w, f"{at}.c3.body.0", torch.cat([x, first, second, third], 1)))

    x = conv(w, "entry", conv(w, "sub_mean.shifter", x))
    first = block("b1", x)
    one = F.relu(conv(w, "c1.body.0", torch.cat([x, first], 1)))
    second = block("b2", one)
    two = F.relu(conv(w, "c2.body.0", torch.cat([x, first, second], 1)))
    third = block("b3", two)
    y = F.relu(conv(w, "c3.body.0", torch.cat([x, first, second, third], 1)))
    for k, factor in enumerate(STAGES[scale]):
        y = F.pixel_shuffle(F.relu(conv(w, f"upsample.{name}.body.{3 * k}", y, groups or 1)), factor)
    return conv(w, "add_mean.shifter", conv(w, "exit", y))


# IMDN (value range 1)


def imdn(scale: int, n: int = 64) -> Weights:
    w = layer("fea_conv", n, 3, 3)
    kept = n // 4
    for k in range(1, 7):
        w |= layer(f"IMDB{k}.c1", n, n, 3)
        w |= layer(f"IMDB{k}.c2", n, n - kept, 3) | layer(f"IMDB{k}.c3", n, n - kept, 3)
        w |= layer(f"IMDB{k}.c4", kept, n - kept, 3) | layer(f"IMDB{k}.c5", n, n, 1)
        w |= layer(f"IMDB{k}.cca.conv_du.0", n // 16, n, 1) | layer(f"IMDB{k}.cca.conv_du.2", n, n // 16, 1)
    return w | layer("c.0", n, 6 * n, 1) | layer("LR_conv", n, n, 3) | layer("upsampler.0", 3 * scale**2, n, 3)


def run_imdn(w: Weights, x: Tensor, scale: int) -> Tensor:
    fea = x = conv(w, "fea_conv", x)
    outputs = []
    for k in range(1, 7):
        kept, rest, parts = x.shape[1] // 4, x, []
        for c in ("c1", "c2", "c3"):
            y = F.leaky_relu(conv(w, f"IMDB{k}.{c}", rest), 0.05)
            parts, rest = [*parts, y[:, :kept]], y[:, kept:]
        y = torch.cat([*parts, conv(w, f"IMDB{k}.c4", rest)], 1)
        mean = y.mean((2, 3), keepdim=True)
        contrast = (y - mean).square().mean((2, 3), keepdim=True).sqrt() + mean
        squeezed = F.relu(conv(w, f"IMDB{k}.cca.conv_du.0", contrast))
        y = y * conv(w, f"IMDB{k}.cca.conv_du.2", squeezed).sigmoid()
        x = x + conv(w, f"IMDB{k}.c5", y)
        outputs.append(x)
    x = fea + conv(w, "LR_conv", F.leaky_relu(conv(w, "c.0", torch.cat(outputs, 1)), 0.05))
    return F.pixel_shuffle(conv(w, "upsampler.0", x), scale)


# RFDN (value range 1, x4)


def rfdn(n: int = 50) -> Weights:
    w, half, quarter = layer("fea_conv", n, 3, 3), n // 2, n // 4
    for k in range(1, 5):
        for c in (1, 2, 3):
            w |= layer(f"B{k}.c{c}_d", half, n, 1) | layer(f"B{k}.c{c}_r", n, n, 3)
        w |= layer(f"B{k}.c4", half, n, 3) | layer(f"B{k}.c5", n, 4 * half, 1)
        w |= layer(f"B{k}.esa.conv1", quarter, n, 1) | layer(f"B{k}.esa.conv_f", quarter, quarter, 1)
        for name in ("conv_max", "conv2", "conv3", "conv3_"):
            w |= layer(f"B{k}.esa.{name}", quarter, quarter, 3)
        w |= layer(f"B{k}.esa.conv4", n, quarter, 1)
    return w | layer("c.0", n, 4 * n, 1) | layer("LR_conv", n, n, 3) | layer("upsampler.0", 48, n, 3)


def run_rfdn(w: Weights, x: Tensor) -> Tensor:
    fea = x = conv(w, "fea_conv", x)
    outputs = []
    for k in range(1, 5):
        parts = []
        for c in (1, 2, 3):
            parts.append(F.leaky_relu(conv(w, f"B{k}.c{c}_d", x), 0.05))
            x = F.leaky_relu(conv(w, f"B{k}.c{c}_r", x) + x, 0.05)
        parts.append(F.leaky_relu(conv(w, f"B{k}.c4", x), 0.05))
        y = conv(w, f"B{k}.c5", torch.cat(parts, 1))
        esa = f"B{k}.esa"
        narrow = conv(w, f"{esa}.conv1", y)
        pooled = F.conv2d(narrow, w[f"{esa}.conv2.weight"], w[f"{esa}.conv2.bias"], stride=2)
        pooled = F.relu(conv(w, f"{esa}.conv_max", F.max_pool2d(pooled, 7, 3)))
        pooled = conv(w, f"{esa}.conv3_", F.relu(conv(w, f"{esa}.conv3", pooled)))
        wide = F.interpolate(pooled, y.shape[-2:], mode="bilinear", align_corners=False)
        x = y * conv(w, f"{esa}.conv4", wide + conv(w, f"{esa}.conv_f", narrow)).sigmoid()
        outputs.append(x)
    x = fea + conv(w, "LR_conv", F.leaky_relu(conv(w, "c.0", torch.cat(outputs, 1)), 0.05))
    return F.pixel_shuffle(conv(w, "upsampler.0", x), 4)


# RDN as in EDSR-PyTorch


def rdn(scale: int, blocks: int = 2, layers: int = 2, growth: int = 8, n: int = 8) -> Weights:
    w = layer("SFENet1", n, 3, 3) | layer("SFENet2", n, n, 3)
    for i in range(blocks):
        for j in range(layers):
            w |= layer(f"RDBs.{i}.convs.{j}.conv.0", growth, n + j * growth, 3)
        w |= layer(f"RDBs.{i}.LFF", n, n + layers * growth, 1)
    w |= layer("GFF.0", n, blocks * n, 1) | layer("GFF.1", n, n, 3)
    for k, factor in enumerate(STAGES[scale]):
        w |= layer(f"UPNet.{2 * k}", growth * factor**2, growth if k else n, 3)
    return w | layer(f"UPNet.{2 * len(STAGES[scale])}", 3, growth, 3)


def run_rdn(w: Weights, x: Tensor, scale: int, blocks: int = 2, layers: int = 2) -> Tensor:
    shallow = conv(w, "SFENet1", x)
    x, outputs = conv(w, "SFENet2", shallow), []
    for i in range(blocks):
        y = x
        for j in range(layers):
            y = torch.cat([y, F.relu(conv(w, f"RDBs.{i}.convs.{j}.conv.0", y))], 1)
        x = x + conv(w, f"RDBs.{i}.LFF", y)
        outputs.append(x)
    x = shallow + conv(w, "GFF.1", conv(w, "GFF.0", torch.cat(outputs, 1)))
    for k, factor in enumerate(STAGES[scale]):
        x = F.pixel_shuffle(conv(w, f"UPNet.{2 * k}", x), factor)
    return conv(w, f"UPNet.{2 * len(STAGES[scale])}", x)


# ESRGAN's generator as in Real-ESRGAN (value range 1); of x2 the image enters with its pixels in channels


def rrdb(scale: int, n: int = 8, growth: int = 32, blocks: int = 2) -> Weights:
    w = layer("conv_first", n, 3 * (16 // scale**2), 3)
    for block in range(blocks):
        for part in (1, 2, 3):
            for k in range(1, 6):
                w |= layer(f"body.{block}.rdb{part}.conv{k}", n if k == 5 else growth, n + (k - 1) * growth, 3)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        w |= layer(name, n, n, 3)
    return w | layer("conv_last", 3, n, 3)


def run_rrdb(w: Weights, x: Tensor, scale: int, blocks: int = 2) -> Tensor:
    def dense(at: str, x: Tensor) -> Tensor:
        parts = [x]
        for k in range(1, 5):
            parts.append(F.leaky_relu(conv(w, f"{at}.conv{k}", torch.cat(parts, 1)), 0.2))
        return x + 0.2 * conv(w, f"{at}.conv5", torch.cat(parts, 1))

    first = x = conv(w, "conv_first", F.pixel_unshuffle(x, 2) if scale == 2 else x)
    for block in range(blocks):
        y = x
        for part in (1, 2, 3):
            y = dense(f"body.{block}.rdb{part}", y)
        x = x + 0.2 * y
    x = first + conv(w, "conv_body", x)
    for name in ("conv_up1", "conv_up2"):
        x = F.leaky_relu(conv(w, name, F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
    return conv(w, "conv_last", F.leaky_relu(conv(w, "conv_hr", x), 0.2))


# Real-ESRGAN's compact networks (realesr-general, realesr-animevideo; value range 1)


def compact(scale: int, n: int = 8, layers: int = 2) -> Weights:
    w = layer("body.0", n, 3, 3)
    for k in range(layers + 1):
        w |= {f"body.{2 * k + 1}.weight": torch.empty(n).uniform_(0, 0.5)}
        w |= layer(f"body.{2 * k + 2}", n if k < layers else 3 * scale**2, n, 3)
    return w


def run_compact(w: Weights, x: Tensor, scale: int, layers: int = 2) -> Tensor:
    y = x
    for k in range(layers + 1):
        y = F.prelu(conv(w, f"body.{2 * k}", y), w[f"body.{2 * k + 1}.weight"])
    y = F.pixel_shuffle(conv(w, f"body.{2 * layers + 2}", y), scale)
    return y + F.interpolate(x, scale_factor=scale, mode="nearest")


# RCAN as in BasicSR


def rcan(scale: int, groups: int = 2, blocks: int = 2, n: int = 16, squeezed: int = 4) -> Weights:
    w = layer("conv_first", n, 3, 3)
    for g in range(groups):
        for b in range(blocks):
            at = f"body.{g}.residual_group.{b}.rcab"
            w |= layer(f"{at}.0", n, n, 3) | layer(f"{at}.2", n, n, 3)
            w |= layer(f"{at}.3.attention.1", squeezed, n, 1) | layer(f"{at}.3.attention.3", n, squeezed, 1)
        w |= layer(f"body.{g}.conv", n, n, 3)
    w |= layer("conv_after_body", n, n, 3)
    for k, factor in enumerate(STAGES[scale]):
        w |= layer(f"upsample.{2 * k}", n * factor**2, n, 3)
    return w | layer("conv_last", 3, n, 3)


def run_rcan(w: Weights, x: Tensor, scale: int, groups: int = 2, blocks: int = 2) -> Tensor:
    """Images of the range 255, from which BasicSR takes the mean colour before and gives it back after."""
    mean = 255 * MEAN[:, None, None]
    first = x = conv(w, "conv_first", x - mean)
    for g in range(groups):
        y = x
        for b in range(blocks):
            at = f"body.{g}.residual_group.{b}.rcab"
            z = conv(w, f"{at}.2", F.relu(conv(w, f"{at}.0", y)))
            gate = F.relu(conv(w, f"{at}.3.attention.1", z.mean((2, 3), keepdim=True)))
            y = y + z * conv(w, f"{at}.3.attention.3", gate).sigmoid()
        x = x + conv(w, f"body.{g}.conv", y)
    x = first + conv(w, "conv_after_body", x)
    for k, factor in enumerate(STAGES[scale]):
        x = F.pixel_shuffle(conv(w, f"upsample.{2 * k}", x), factor)
    return conv(w, "conv_last", x) + mean


# Files, and what they must give


def save(folder: Path, weights: dict, name: str = "weights.pth", **options) -> Path:
    torch.save(weights, folder / name, **options)
    return folder / name


@torch.no_grad()
def assert_gives(network, expected, value_range: int = 1, size=(24, 19)) -> None:
    """The network on [0, 1] is the published function on its own range, up to rounding."""
    lr = torch.rand(1, 3, *size)
    want = expected(value_range * lr) / value_range
    assert network(lr).shape == want.shape
    assert (network(lr) - want).abs().max() <= 1e-5 * max(1.0, want.abs().max())
