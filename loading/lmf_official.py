"""Weights of the authors' LMF repository: their names become ours, and the names tell which network they belong to.

A file of theirs is {"model": {"name", "args", "sd"}, "optimizer", "epoch"}. LM-CiaoSR is always read with
`weight_compat`: its authors trained it with permuted windows and without the interpolated image, and their weights make
sense in no other reading. What their evaluation adds to that (the interpolated image, once more) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from loading.state_dict_file import StateDictFile
from models import build_sr
from models.sr_network import SRNetwork
from utils.checkpoint import CheckpointError
from utils.errors import UserError

LAYOUT = "LMF authors' names"
READS = "LM-LIIF, LM-LTE, LM-CiaoSR"
SCALE = 4  # of the network where none is asked for: the largest that these are trained at
OFFICIAL_NAMES = ("lmliif", "lmlte", "lmciaosr")
# Arguments that leave no trace in names and shapes, with the values of the published networks.
FIXED = {"local_ensemble": True, "cell_decode": True, "softmax_scale": 1, "multi_scale": [2], "local_size": 2}

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


def read_official(path: str | Path, file: StateDictFile, scale: float | None) -> SRNetwork | None:
    """Network of a file of the authors' repository; None where it is none.

    Args:
        path: for messages.
        file: its content.
        scale: factor of the network where no size is given; None takes SCALE.

    Raises:
        CheckpointError: it is one, but cannot be read.
    """
    name, args = file.spec.get("name"), file.spec.get("args")
    if not is_official(file.weights, name):
        return None
    if name is not None and name not in OFFICIAL_NAMES:
        raise CheckpointError(f"{path}: calls itself {name!r}; of this kind {', '.join(OFFICIAL_NAMES)} can be read")
    try:
        if not isinstance(args, dict | None):
            raise UserError(f"args is a {type(args).__name__}, no dictionary; save the state dict alone")
        return official_network(file.weights, SCALE if scale is None else scale, args)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def official_network(tensors: Mapping[str, Tensor], scale: float, args: Mapping | None = None) -> SRNetwork:
    """Network with the weights of a checkpoint of the authors' repository, in evaluation mode.

    Args:
        tensors: state dict by the authors' names.
        scale: factor of the network where no size is given.
        args: what the checkpoint says about the network, "args" of its "model", where it does.

    Raises:
        ValueError: not such weights, or they are missing, unknown or of another shape, or `args` asks for another
            computation than the paper's.
    """
    check_args(args or {})
    name, own_args = architecture_of(tensors)
    network = build_sr(name, scale, own_args)
    names = renamed(tensors)
    weights = {names[key]: tensors[key] for key in names}
    own = network.state_dict()
    wrong = [f"{key} is unknown" for key in names if names[key] not in own]
    wrong += [f"{key} is missing (as it is called here)" for key in own if key not in weights]
    wrong += [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(own[new].shape)}"
        for key, new in names.items()
        if new in own and tensors[key].shape != own[new].shape
    ]
    if wrong:
        listed = f"{'; '.join(wrong[:5])}{'; ...' if len(wrong) > 5 else ''}"
        raise UserError(f"looks like {name}, but {len(wrong)} tensors do not fit: {listed}; use a complete copy")
    network.load_state_dict(weights)
    return network.eval()


def is_official(tensors: Mapping[str, Tensor], name: str | None = None) -> bool:
    """Whether these are weights of the authors' LMF repository, complete or not.

    Args:
        tensors: state dict.
        name: "name" of the checkpoint's "model", where there is one.
    """
    return name in OFFICIAL_NAMES or any(key.startswith("hypernet") for key in tensors)


def check_args(args: Mapping) -> None:
    """Raises ValueError where the arguments of the authors' model are not plain, or change what is computed unseen."""
    check_plain(args, "args")
    for key, value in FIXED.items():
        if key in args and args[key] != value:
            raise UserError(f"args: {key} is {args[key]!r}; only networks with {value!r}, as published, can be read")


def check_plain(value: object, place: str) -> None:
    """Raises ValueError where `value`, nested, is more than text, numbers, lists and dictionaries."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_plain(item, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            check_plain(item, f"{place}.{number}")
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise UserError(f"{place} is a {type(value).__name__}, no plain value; save the state dict alone")


def architecture_of(tensors: Mapping[str, Tensor]) -> tuple[str, dict]:
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
        raise UserError("not the weights of LM-LIIF, LM-LTE or LM-CiaoSR with compressed codes")
    if "encoder.conv_first.weight" in tensors:
        return name, {"encoder": "swinir", **args}
    if "encoder.SFENet1.weight" in tensors:
        encoder, features, blocks = "rdn", "encoder.SFENet1.weight", r"encoder\.RDBs\.(\d+)\."
    elif "encoder.head.0.weight" in tensors:
        encoder, features, blocks = "edsr_baseline", "encoder.head.0.weight", r"encoder\.body\.(\d+)\.body\."
    else:
        raise UserError("the encoder of these LMF weights is none of EDSR-baseline, RDN, SwinIR")
    found = {int(match[1]) for match in map(re.compile(blocks).match, tensors) if match}
    return name, {"encoder": encoder, "n_blocks": max(found, default=0) + 1, "n_feats": len(tensors[features])} | args


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """{the authors' name: this project's name}, the authors' constants left out."""
    layers = [int(match[1]) for match in map(RENDER_LAYER.match, tensors) if match]
    names = {}
    for key in tensors:
        if UNUSED.search(key):
            continue
        name = key
        if match := RENDER_LAYER.match(key):  # 0, 2, 4, ... with activations in between; the last makes colours
            number = int(match[1])
            layer = "rgb" if number == max(layers) else f"hidden.{number // 2}"
            name = f"decoder.render_mlp.{layer}.{key[match.end() :]}"
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        names[key] = name
    return names
