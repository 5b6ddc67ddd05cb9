"""Weights of the authors' LMF repository: their names become ours, and the names tell which network they belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from models.lmf import lm_ciaosr, lm_liif, lm_lte
from models.lmf.network import LMF

BUILDERS = {"lm_liif": lm_liif, "lm_lte": lm_lte, "lm_ciaosr": lm_ciaosr}

# Constants of the authors' modules: mean shifts that they leave out, tables of window positions, a smallest norm.
UNUSED = re.compile(r"encoder\.(sub_mean|add_mean)\.|\.(relative_position_index|attn_mask)$|^cs_attn\.escape_NaN$")

RENAMED = [
    (r"^encoder\.(RDBs\.\d+\.convs\.\d+)\.conv\.", r"encoder.\1."),
    (r"^encoder\.patch_embed\.norm\.", "encoder.norm_first."),
    (r"^encoder\.(layers\.\d+)\.residual_group\.", r"encoder.\1."),
    (r"^(coef|freq|phase)\.", r"decoder.\1."),
    (r"^imphase\.", "decoder.renderer.phase."),
    (r"^hypernet(_q)?\.layers\.", "decoder.latent_mlp."),
    (r"^prenet_q\.layers\.", "decoder.query_mlp."),
    (r"^imnet_k\.layers\.", "decoder.key_mlp."),
    (r"^imnet_v\.layers\.", "decoder.value_mlp."),
    (r"^cs_attn\.conv_match_1\.", "decoder.non_local.query."),
    (r"^cs_attn\.conv_match_2\.", "decoder.non_local.key."),
    (r"^cs_attn\.conv_assembly\.", "decoder.non_local.value."),
    (r"^cs_attn\.down\.", "decoder.non_local.down."),
]
RENDER_LAYER = re.compile(r"^imnet(?:_q)?\.layers\.(\d+)\.")


def official_network(content: Mapping, scale: float) -> LMF:
    """Network with the weights of a checkpoint of the authors' repository, in evaluation mode.

    Args:
        content: what the file holds: {"model": {"name", "args", "sd"}, ...}, or the state dict alone.
        scale: factor of the network where no size is given.

    Raises:
        ValueError: not such a checkpoint, or weights are missing, unknown or of another shape; all are named.
    """
    tensors = state_dict(content)
    name, args = describe(tensors)
    network = BUILDERS[name](scale, **args)
    network.spec = {"name": name, "args": {"scale": scale, **args}}
    weights = rename(tensors)
    own = network.state_dict()
    wrong = [f"{key} is unknown" for key in weights.keys() - own.keys()]
    wrong += [f"{key} is missing" for key in own.keys() - weights.keys()]
    wrong += [
        f"{key} is {tuple(weights[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & weights.keys()
        if weights[key].shape != own[key].shape
    ]
    if wrong:
        raise ValueError(f"LMF weights for {name} do not fit: {'; '.join(sorted(wrong)[:5])} ({len(wrong)} in all)")
    network.load_state_dict(weights)
    return network.eval()


def is_official(content: Mapping) -> bool:
    """Whether this is a checkpoint of the authors' LMF repository, or a state dict from one."""
    try:
        describe(state_dict(content))
    except ValueError:
        return False
    return True


def state_dict(content: Mapping) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the authors' names, without the prefix of DataParallel.

    Raises:
        ValueError: there are none.
    """
    model = content.get("model", content)
    tensors = model.get("sd", model) if isinstance(model, Mapping) else {}
    tensors = {k.removeprefix("module."): v for k, v in tensors.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise ValueError("holds no LMF weights: neither {'model': {'name', 'args', 'sd'}} nor a state dict")
    return tensors


def describe(tensors: Mapping[str, Tensor]) -> tuple[str, dict]:
    """Name and arguments of the network that a state dict of the authors belongs to.

    Raises:
        ValueError: it belongs to none.
    """
    if "cs_attn.down.weight" in tensors and "imnet_q.layers.0.weight" in tensors:
        name, args = "lm_ciaosr", {"weight_compat": True}
    elif "imphase.weight" in tensors and "hypernet.layers.0.weight" in tensors:
        name, args = "lm_lte", {}
    elif "hypernet.layers.0.weight" in tensors and "imnet.layers.0.weight" in tensors:
        name, args = "lm_liif", {}
    else:
        raise ValueError("not the weights of LM-LIIF, LM-LTE or LM-CiaoSR with compressed codes")
    if "encoder.conv_first.weight" in tensors:
        return name, {"encoder": "swinir", **args}
    if "encoder.SFENet1.weight" in tensors:
        encoder, features, blocks = "rdn", "encoder.SFENet1.weight", r"encoder\.RDBs\.(\d+)\."
    elif "encoder.head.0.weight" in tensors:
        encoder, features, blocks = "edsr_baseline", "encoder.head.0.weight", r"encoder\.body\.(\d+)\.body\."
    else:
        raise ValueError("the encoder of these LMF weights is none of EDSR-baseline, RDN, SwinIR")
    found = {int(match[1]) for match in map(re.compile(blocks).match, tensors) if match}
    return name, {"encoder": encoder, "n_blocks": max(found, default=0) + 1, "n_feats": len(tensors[features])} | args


def rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under this project's names, the authors' constants left out."""
    layers = [int(match[1]) for match in map(RENDER_LAYER.match, tensors) if match]
    result = {}
    for key, value in tensors.items():
        if UNUSED.search(key):
            continue
        if match := RENDER_LAYER.match(key):  # 0, 2, 4, ... with activations in between; the last makes colours
            number = int(match[1])
            layer = "rgb" if number == max(layers) else f"hidden.{number // 2}"
            key = f"decoder.render_mlp.{layer}.{key[match.end() :]}"
        for pattern, replacement in RENAMED:
            key = re.sub(pattern, replacement, key)
        result[key] = value
    return result
