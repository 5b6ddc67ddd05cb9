"""Which network a published state dict holds, and its weights under this project's names.

One function per family: `map_x(weights)` returns a Match, or None where the keys are another network's. Names are those
of the authors' repositories; for EDSR, RCAN and RDN also those of the common re-implementations.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.networks.mean_colour import DIV2K_MEAN

Weights = dict[str, Tensor]


@dataclass
class Match:
    """A network recognised in a state dict.

    Args:
        name: entry of SR_NETWORKS.
        scales: scales that the file has weights for.
        args: arguments of the network besides scale.
        weights: by this project's names, of all scales; the values still as published.
        first: weights of the first layers, which see the image in the published value range.
        last: weights and biases of the last layer, whose output has that range.
        layout: whose key names these are.
        conventions: (value range 1 or 255, further arguments) that the keys leave open, the likeliest first.
    """

    name: str
    scales: tuple[int, ...]
    args: dict
    weights: Weights
    first: tuple[str, ...]
    last: tuple[str, ...]
    layout: str = "authors' names"
    conventions: list[tuple[int, dict]] = field(default_factory=lambda: [(1, {}), (255, {})])


class UnusableWeights(ValueError):
    """The state dict is of a known kind, but no network here has these weights."""


# ---------------------------------------------------------------------- helpers


def count(weights: Weights, pattern: str) -> int:
    """One more than the largest number at the group of `pattern` among the keys."""
    numbers = [int(match[1]) for key in weights if (match := re.match(pattern, key))]
    return 1 + max(numbers, default=-1)


def staged_scale(weights: Weights, *names: str) -> int:
    """Scale of PixelShuffle stages from the convolutions before them, those that exist."""
    factors = [math.isqrt(weights[n].shape[0] // weights[n].shape[1]) for n in names if n in weights]
    return math.prod(factors)


def rename(weights: Weights, *rules: tuple[str, str]) -> Weights:
    """Keys changed by the first rule (pattern, replacement) that fits, else kept."""
    renamed = {}
    for key, value in weights.items():
        rule = next(((p, r) for p, r in rules if re.match(p, key)), None)
        renamed[re.sub(*rule, key, count=1) if rule else key] = value
    return renamed


def take_mean_shift(weights: Weights) -> tuple[Weights, int | None]:
    """The weights without `sub_mean` and `add_mean`, and the value range they stand for; None where there are none.

    Raises:
        UnusableWeights: they are not DIV2K's mean colour in the range 1 or 255.
    """
    shifts = {k: v for k, v in weights.items() if re.match(r"(sub|add)_mean\.(shifter\.)?(weight|bias)$", k)}
    if not shifts:
        return weights, None
    mean = torch.tensor(DIV2K_MEAN)
    bias = {key[:3]: value for key, value in shifts.items() if key.endswith("bias")}
    matrices = [value for key, value in shifts.items() if key.endswith("weight")]
    for value_range in (1, 255):
        shift = value_range * mean
        if (
            bias.keys() == {"sub", "add"}
            and torch.allclose(bias["sub"].flatten(), -shift, rtol=1e-3)
            and torch.allclose(bias["add"].flatten(), shift, rtol=1e-3)
            and all(torch.allclose(matrix.flatten(), torch.eye(3).flatten(), atol=1e-4) for matrix in matrices)
        ):
            return {key: value for key, value in weights.items() if key not in shifts}, value_range
    stored = {key: [round(number, 4) for number in value.flatten().tolist()] for key, value in bias.items()}
    raise UnusableWeights(
        f"its sub_mean and add_mean are {stored}, not the mean colour of DIV2K {DIV2K_MEAN} in the range 1 or 255"
        " without scaling; fold them into the first and last layer"
    )


def colour_conventions(value_range: int | None, likely: list[tuple[int, bool]]) -> list[tuple[int, dict]]:
    """[(range, {"div2k_mean": ...})]: one where the keys tell, else the likely ones."""
    known = list(dict.fromkeys(likely)) if value_range is None else [(value_range, True)]
    return [(number, {"div2k_mean": mean}) for number, mean in known]


EVERY_COLOUR = [(1, False), (255, True), (255, False), (1, True)]

# --------------------------------------------------------------------- families


def map_edsr(weights: Weights) -> Match | None:
    layout = "authors' names"
    if {"conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight", "upsample.0.weight"} <= weights.keys():
        layout, blocks = "BasicSR's names", count(weights, r"body\.(\d+)\.conv1")
        weights = rename(
            weights,
            (r"conv_first\.", "head.0."),
            (r"body\.(\d+)\.conv1\.", r"body.\1.body.0."),
            (r"body\.(\d+)\.conv2\.", r"body.\1.body.2."),
            (r"conv_after_body\.", f"body.{blocks}."),
            (r"upsample\.", "tail.0."),
            (r"conv_last\.", "tail.1."),
        )
    if not {"head.0.weight", "body.0.body.0.weight"} <= weights.keys() or "body.0.body.1.weight" in weights:
        return None
    weights, value_range = take_mean_shift(weights)
    n_feats, last = weights["head.0.weight"].shape[0], ("tail.1.weight", "tail.1.bias")
    args = {"n_blocks": count(weights, r"body\.(\d+)\.body\."), "n_feats": n_feats}
    if "tail.0.weight" in weights:  # one convolution, one PixelShuffle
        scale, last = math.isqrt(weights["tail.0.weight"].shape[0] // 3), ("tail.0.weight", "tail.0.bias")
        args["tail"] = "single"
    else:
        scale = staged_scale(weights, "tail.0.0.weight", "tail.0.2.weight", "tail.0.4.weight")
    likely = [(255, True), *EVERY_COLOUR] if layout == "BasicSR's names" else EVERY_COLOUR
    # Residuals are scaled by 0.1 in the published wide network only.
    scalings = (0.1, 1.0) if n_feats >= 128 else (1.0, 0.1)
    colours = colour_conventions(value_range, likely)
    conventions = [(number, more | {"res_scale": factor}) for factor in scalings for number, more in colours]
    return Match("edsr", (scale,), args, weights, ("head.0.weight",), last, layout, conventions)


def map_rcan(weights: Weights) -> Match | None:
    layout = "authors' names"
    if {"conv_first.weight", "body.0.residual_group.0.rcab.0.weight"} <= weights.keys():
        layout, groups = "BasicSR's names", count(weights, r"body\.(\d+)\.residual_group")
        blocks = count(weights, r"body\.0\.residual_group\.(\d+)\.")
        weights = rename(
            weights,
            (r"conv_first\.", "head.0."),
            (r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.1\.", r"body.\1.body.\2.body.3.conv_du.0."),
            (r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.3\.", r"body.\1.body.\2.body.3.conv_du.2."),
            (r"body\.(\d+)\.residual_group\.(\d+)\.rcab\.", r"body.\1.body.\2.body."),
            (r"body\.(\d+)\.conv\.", rf"body.\1.body.{blocks}."),
            (r"conv_after_body\.", f"body.{groups}."),
            (r"upsample\.", "tail.0."),
            (r"conv_last\.", "tail.1."),
        )
    if not {"head.0.weight", "body.0.body.0.body.3.conv_du.0.weight"} <= weights.keys():
        return None
    weights, value_range = take_mean_shift(weights)
    n_feats = weights["head.0.weight"].shape[0]
    args = {
        "n_groups": count(weights, r"body\.(\d+)\.body\."),
        "n_blocks": count(weights, r"body\.0\.body\.(\d+)\.body\."),
        "n_feats": n_feats,
        "reduction": n_feats // weights["body.0.body.0.body.3.conv_du.0.weight"].shape[0],
    }
    scale = staged_scale(weights, "tail.0.0.weight", "tail.0.2.weight", "tail.0.4.weight")
    likely = [(255, True), *EVERY_COLOUR] if layout == "BasicSR's names" else EVERY_COLOUR
    conventions = colour_conventions(value_range, likely)
    last = ("tail.1.weight", "tail.1.bias")
    return Match("rcan", (scale,), args, weights, ("head.0.weight",), last, layout, conventions)


def map_carn(weights: Weights) -> Match | None:
    if not {"entry.weight", "b1.b1.body.0.weight", "b1.c1.body.0.weight"} <= weights.keys():
        return None
    weights, value_range = take_mean_shift(weights)
    if "upsample.up.body.0.weight" in weights:
        scale = _carn_scale(weights, "upsample.up.")
        weights = rename(weights, (r"upsample\.up\.", f"upsample.up{scale}."))
    scales = tuple(s for s in (2, 3, 4) if f"upsample.up{s}.body.0.weight" in weights)
    if not scales:
        raise UnusableWeights(
            "it is a CARN, but has no upsample.up2, up3, up4 or up with convolutions before PixelShuffle"
        )
    n_feats = weights["entry.weight"].shape[0]
    efficient = "b1.b2.body.0.weight" not in weights
    grouped = weights[f"upsample.up{scales[0]}.body.0.weight"]
    args = {"n_feats": n_feats, "efficient": efficient, "groups": n_feats // grouped.shape[1]}
    conventions = [(value_range, {})] if value_range else [(1, {}), (255, {})]
    name, last = "carn_m" if efficient else "carn", ("exit.weight", "exit.bias")
    return Match(name, scales, args, weights, ("entry.weight",), last, conventions=conventions)


def _carn_scale(weights: Weights, prefix: str) -> int:
    """Scale of one CARN upsampler; its grouped convolutions make n_feats * factor^2 maps."""
    n_feats = weights["entry.weight"].shape[0]
    stages = [value for key, value in weights.items() if re.fullmatch(re.escape(prefix) + r"body\.\d+\.bias", key)]
    return math.prod(math.isqrt(bias.shape[0] // n_feats) for bias in stages)


def map_rdn(weights: Weights) -> Match | None:
    layout, conventions = "EDSR-PyTorch's names", [(255, {}), (1, {})]
    if {"sfe1.weight", "rdbs.0.layers.0.conv.weight", "rdbs.0.lff.weight"} <= weights.keys():
        layout, conventions = "RDN-pytorch's names", [(1, {}), (255, {})]
        weights = rename(
            weights,
            (r"sfe([12])\.", r"SFENet\1."),
            (r"rdbs\.(\d+)\.layers\.(\d+)\.conv\.", r"RDBs.\1.convs.\2.conv.0."),
            (r"rdbs\.(\d+)\.lff\.", r"RDBs.\1.LFF."),
            (r"gff\.", "GFF."),
            (r"upscale\.", "UPNet."),
            (r"output\.", f"UPNet.{count(weights, r'upscale[.]([0-9]+)[.]') + 1}."),
        )
    if not {"SFENet1.weight", "RDBs.0.convs.0.conv.0.weight"} <= weights.keys():
        return None
    dense = weights["RDBs.0.convs.0.conv.0.weight"]
    args = {
        "n_blocks": count(weights, r"RDBs\.(\d+)\."),
        "n_layers": count(weights, r"RDBs\.0\.convs\.(\d+)\."),
        "growth": dense.shape[0],
        "n_feats": dense.shape[1],
    }
    end = count(weights, r"UPNet\.(\d+)\.") - 1
    factors = [math.isqrt(weights[f"UPNet.{k}.bias"].shape[0] // dense.shape[0]) for k in range(0, end, 2)]
    last = (f"UPNet.{end}.weight", f"UPNet.{end}.bias")
    return Match("rdn", (math.prod(factors),), args, weights, ("SFENet1.weight",), last, layout, conventions)


def map_imdn(weights: Weights) -> Match | None:
    if not {"fea_conv.weight", "IMDB1.c1.weight", "upsampler.0.weight"} <= weights.keys():
        return None
    return _distillation("imdn", weights, r"IMDB(\d+)\.")


def map_rfdn(weights: Weights) -> Match | None:
    if not {"fea_conv.weight", "B1.c1_d.weight", "upsampler.0.weight"} <= weights.keys():
        return None
    return _distillation("rfdn", weights, r"B(\d+)\.")


def _distillation(name: str, weights: Weights, blocks: str) -> Match:
    args = {"n_blocks": count(weights, blocks) - 1, "n_feats": weights["fea_conv.weight"].shape[0]}
    scale = math.isqrt(weights["upsampler.0.weight"].shape[0] // 3)
    last = ("upsampler.0.weight", "upsampler.0.bias")
    return Match(name, (scale,), args, weights, ("fea_conv.weight",), last)


def map_span(weights: Weights) -> Match | None:
    layout = "authors' names"
    if {"conv_1.sk.weight", "block_1.c1_r.sk.weight", "upsampler.0.weight"} <= weights.keys():
        conventions = [(255, {"div2k_mean": True}), (1, {"div2k_mean": True})]
        if "no_norm" in weights:
            conventions = [(1, {"div2k_mean": False})]
        weights = _merged_span({key: value for key, value in weights.items() if key != "no_norm"})
    elif {"conv_1.eval_conv.weight", "block_1.c1_r.eval_conv.weight", "upsampler.0.weight"} <= weights.keys():
        layout, conventions = "authors' names, branches merged", [(255, {"div2k_mean": True})]
        weights = rename(weights, (r"(.*)\.eval_conv\.", r"\1."))
    else:
        return None
    scale = math.isqrt(weights["upsampler.0.weight"].shape[0] // 3)
    args = {"n_feats": weights["conv_1.weight"].shape[0]}
    return Match("span", (scale,), args, weights, ("conv_1.weight",), (), layout, conventions)


def _merged_span(weights: Weights) -> Weights:
    """The published training form with the branches of every convolution merged.

    Raises:
        UnusableWeights: keys are missing, unknown or of other shapes.
    """
    from spandrel.architectures.SPAN import SPAN

    from models.networks.span import merge_branches

    scale = math.isqrt(weights["upsampler.0.weight"].shape[0] // 3)
    network = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=weights["conv_1.sk.weight"].shape[0], upscale=scale)
    # eval_conv is what the branches amount to; it may be missing or stale.
    learned = {key: value for key, value in weights.items() if ".eval_conv." not in key}
    needed = {key for key in network.state_dict() if ".eval_conv." not in key}
    if learned.keys() != needed:
        differing = sorted(learned.keys() ^ needed)
        raise UnusableWeights(f"it is a SPAN, but {len(differing)} keys are missing or unknown, such as {differing[0]}")
    try:
        network.load_state_dict(learned, strict=False)
    except RuntimeError as error:
        raise UnusableWeights(f"it is a SPAN, but {' '.join(str(error).split())[:200]}") from error
    return merge_branches(network).state_dict()


def map_swinir(weights: Weights) -> Match | None:
    first = "layers.0.residual_group.blocks.0"
    table, hidden = f"{first}.attn.relative_position_bias_table", f"{first}.mlp.fc1.bias"
    if not {"conv_first.weight", table, hidden} <= weights.keys() or "absolute_pos_embed" in weights:
        return None
    weights = {k: v for k, v in weights.items() if not k.endswith((".attn_mask", ".relative_position_index"))}
    groups = count(weights, r"layers\.(\d+)\.")
    depths = {count(weights, rf"layers\.{k}\.residual_group\.blocks\.(\d+)\.") for k in range(groups)}
    tables = {v.shape for k, v in weights.items() if k.endswith(".relative_position_bias_table")}
    if len(depths) > 1 or len(tables) > 1:  # groups of different kinds
        return None
    last = ("conv_last.weight", "conv_last.bias")
    if "conv_up1.weight" in weights:
        upsampler, scale = "nearest+conv", 2 ** sum(f"conv_up{k}.weight" in weights for k in (1, 2, 3))
    elif "conv_before_upsample.0.weight" in weights:
        upsampler = "pixelshuffle"
        scale = staged_scale(weights, "upsample.0.weight", "upsample.2.weight", "upsample.4.weight")
    elif "upsample.0.weight" in weights:
        upsampler, last = "pixelshuffledirect", ("upsample.0.weight", "upsample.0.bias")
        scale = math.isqrt(weights["upsample.0.weight"].shape[0] // 3)
    else:
        return None
    dim, window = weights["conv_first.weight"].shape[0], (math.isqrt(weights[table].shape[0]) + 1) // 2
    args = {
        "dim": dim,
        "n_groups": groups,
        "n_blocks": depths.pop(),
        "n_heads": weights[table].shape[1],
        "window": window,
        "mlp_ratio": weights[hidden].shape[0] / dim,
        "upsampler": upsampler,
        "connection": "1conv" if "conv_after_body.weight" in weights else "3conv",
    }
    name = "swinir_light" if upsampler == "pixelshuffledirect" else "swinir"
    return Match(name, (scale,), args, weights, ("conv_first.weight",), last, conventions=[(1, {})])


FAMILIES = (map_edsr, map_rcan, map_carn, map_rdn, map_imdn, map_rfdn, map_span, map_swinir)
