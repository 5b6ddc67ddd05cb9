"""Weights of the authors' LDCSR repository: PyTorch Lightning's files of the first and of the second stage.

The second stage holds everything; of its U-Net the moving average is taken, which is what the authors report. The first
stage is an autoencoder alone: condition network and U-Net then keep fresh weights, for a training to begin from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from models import build_sr
from models.ldcsr.decoder import LEVELS
from models.ldcsr.encoder import MULTIPLIERS
from models.ldcsr.unet import HEAD
from models.sr_network import SRNetwork

SCALE = 4  # of the network where none is asked for
BLOCKS = 2  # residual blocks of a level
# Losses and their networks, the schedule, and the book-keeping of the moving average.
UNUSED = re.compile(
    r"(first_stage_model\.)?loss\.|model_ema\.(decay|num_updates)$|(logvar|betas|lvlb_weights|posterior_\w+)$|"
    r"\w*alphas_cumprod\w*$"
)
AUTOENCODER = ("quant_conv.weight", "post_quant_conv.weight", "decoder.style.weight")
UNET, AVERAGED, FIRST_STAGE = "model.diffusion_model.", "model_ema.", "first_stage_model."


def read_ldcsr(tensors: Mapping[str, Tensor], scale: float | None) -> tuple[SRNetwork, dict[str, Tensor], str] | None:
    """Network for a state dict of the authors, the weights that belong into it, and which stage they are of.

    Args:
        tensors: state dict by the authors' names.
        scale: factor of the network where no size is given; None takes SCALE.

    Returns:
        None where these are other weights. Tensors that are missing or unknown stay so in the second item.
    """
    whole = all(FIRST_STAGE + key in tensors for key in AUTOENCODER)
    if not whole and not all(key in tensors for key in AUTOENCODER):
        return None
    prefix = FIRST_STAGE if whole else ""
    own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    args = arguments(own) | {"weight_compat": True}
    if whole:
        tensors = averaged(tensors)
        if UNET + "input_blocks.0.0.weight" in tensors:
            args["unet_channels"] = len(tensors[UNET + "input_blocks.0.0.weight"])
        if "betas" in tensors:
            args["steps"] = len(tensors["betas"])
    network = build_sr("ldcsr", SCALE if scale is None else scale, args)
    names = layer_names(args["n_modules"], prefix)
    weights = {} if whole else dict(network.state_dict())
    for key, value in tensors.items():
        if not UNUSED.match(key):
            weights |= renamed(key, value, names)
    return network, weights, "second stage" if whole else "first stage, condition network and U-Net untrained"


def arguments(autoencoder: Mapping[str, Tensor]) -> dict:
    """Arguments of the network, from the shapes of the authors' autoencoder."""
    shapes = {key: tuple(value.shape) for key, value in autoencoder.items()}

    def count(pattern: str) -> int:
        return 1 + max((int(match[1]) for key in shapes if (match := re.match(pattern, key))), default=0)

    known = {
        "channels": ("decoder.head.weight", 0),
        "latent_channels": ("post_quant_conv.weight", 0),
        "encoder_channels": ("encoder.conv_in.weight", 0),
        "width": ("decoder.upsampler.fuse.0.weight", 0),
    }
    args = {name: shapes[key][axis] for name, (key, axis) in known.items() if key in shapes}
    args["n_modules"] = count(r"decoder\.FRUList\.0\.IMDB\.(\d+)\.")
    args["levels"] = 1 + count(r"decoder\.upsampler\.UPNet_x2_list\.(\d+)\.")
    return args


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the moving average in the U-Net's place; its names there have no dots."""
    wanted = {AVERAGED + key.removeprefix("model.").replace(".", ""): key for key in tensors if key.startswith(UNET)}
    found = {key: tensors[name] for name, key in wanted.items() if name in tensors}
    return {key: value for key, value in tensors.items() if key not in wanted} | found


def renamed(key: str, value: Tensor, names: Mapping[str, str]) -> dict[str, Tensor]:
    """A tensor by its name here; queries, keys and values of an attention head lie in one tensor there."""
    if key == "scale_factor":
        return {"latent_scale": value.reshape(())}
    if key.endswith("decoder.style.weight"):
        return {"autoencoder.decoder.unused": value}
    layer, _, kind = key.rpartition(".")
    if layer.endswith(".qkv"):
        heads = value.reshape(-1, 3, HEAD, *value.shape[1:2])  # (heads, 3, HEAD[, C])
        block = names.get(layer.removesuffix(".qkv"), layer)
        return {f"{block}.to_{part}.{kind}": heads[:, n].flatten(0, 1) for n, part in enumerate("qkv")}
    if layer.endswith(".proj_out"):
        block = names.get(layer.removesuffix(".proj_out"), layer)
        return {f"{block}.to_out.0.{kind}": value.flatten(1) if kind == "weight" else value}
    return {f"{names.get(layer, layer)}.{kind}": value}


def layer_names(n_modules: int, prefix: str = FIRST_STAGE) -> dict[str, str]:
    """{layer by the authors' name: by the name here} of all networks of a file; `prefix` is before the autoencoder."""
    names = {f"{prefix}encoder.{a}": f"autoencoder.encoder.body.{b}" for a, b in encoder_names().items()}
    names |= {f"{prefix}decoder.{a}": f"autoencoder.decoder.{b}" for a, b in decoder_names(n_modules).items()}
    names |= {f"{prefix}quant_conv": "autoencoder.encoder.moments", f"{prefix}post_quant_conv": "autoencoder.unpack"}
    names |= {f"cond_stage_model.{a}": f"condition.body.{b}" for a, b in encoder_names().items()}
    return names | {UNET + a: f"unet.{b}" for a, b in unet_names().items()}


def block_names(theirs: str, ours: str) -> dict[str, str]:
    """Layers of a residual block of the autoencoder and the condition network."""
    names = {layer: layer for layer in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}
    return {f"{theirs}.{a}": f"{ours}.{b}" for a, b in names.items()}


def encoder_names() -> dict[str, str]:
    names = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}
    for level in range(len(MULTIPLIERS)):
        for block in range(BLOCKS):
            names |= block_names(f"down.{level}.block.{block}", f"down_blocks.{level}.resnets.{block}")
        names[f"down.{level}.downsample.conv"] = f"down_blocks.{level}.downsamplers.0.conv"
    for block in range(BLOCKS):
        names |= block_names(f"mid.block_{block + 1}", f"mid_block.resnets.{block}")
    return names


def decoder_names(n_modules: int) -> dict[str, str]:
    names = {"head": "from_image", "conv_in": "from_latent"}
    for block in range(BLOCKS):
        names |= block_names(f"mid.block_{block + 1}", f"middle.{block}")
    for level in range(LEVELS):
        up, ours = f"up.{LEVELS - 1 - level}", f"levels.{level}"  # theirs count from the last to the first
        for block in range(BLOCKS):
            names |= block_names(f"{up}.block.{block}", f"{ours}.blocks.{block}")
        names |= {f"{up}.transfer": f"{ours}.transfer", f"{up}.condition_scale1": f"{ours}.image_gain"}
        names[f"{up}.condition_scale2"] = f"{ours}.prior_gain"
        unit = f"FRUList.{level}"
        names |= {f"{unit}.c.0": f"{ours}.refine.squeeze", f"{unit}.LR_conv": f"{ours}.refine.last"}
        for module in range(n_modules):
            for layer in ("c1", "c2", "c3", "c4", "c5", "cca.conv_du.0", "cca.conv_du.2"):
                names[f"{unit}.IMDB.{module}.{layer}"] = f"{ours}.refine.chain.{module}.{layer}"
    names |= {f"upsampler.scale_aware_layer.{n}": f"upsampler.weights.{n}" for n in (0, 2)}
    names |= {f"upsampler.UPNet_x2_list.{n}.0": f"upsampler.finer.{n}.0" for n in range(8)}
    return names | {f"upsampler.fuse.{n}": f"upsampler.fuse.{n}" for n in range(0, 10, 2)}


def unet_names() -> dict[str, str]:
    """Theirs are numbered through; here each resolution has its blocks."""
    names = {"input_blocks.0.0": "unet.conv_in", "out.0": "unet.conv_norm_out", "out.2": "unet.conv_out"}
    for theirs, ours in (("time", "unet.time_embedding"), ("scale", "scale"), ("osize", "height")):
        names |= {f"{theirs}_embed.0": f"{ours}.linear_1", f"{theirs}_embed.2": f"{ours}.linear_2"}
    lowest = len(MULTIPLIERS) - 1
    for level in range(len(MULTIPLIERS)):
        down, up = f"unet.down_blocks.{level}", f"unet.up_blocks.{level}"
        first, last = 1 + (BLOCKS + 1) * level, (BLOCKS + 1) * level
        for block in range(BLOCKS):
            names |= unet_block(f"input_blocks.{first + block}", down, block, attention=level == lowest)
        names[f"input_blocks.{first + BLOCKS}.0.op"] = f"{down}.downsamplers.0.conv"
        for block in range(BLOCKS + 1):
            names |= unet_block(f"output_blocks.{last + block}", up, block, attention=level == 0)
        names[f"output_blocks.{last + BLOCKS}.{2 if level == 0 else 1}.conv"] = f"{up}.upsamplers.0.conv"
    for place, block in ((0, 0), (2, 1)):
        names |= unet_resnet(f"middle_block.{place}", f"unet.mid_block.resnets.{block}")
    return names | attention_names("middle_block.1", "unet.mid_block.attentions.0")


def unet_block(theirs: str, ours: str, block: int, attention: bool) -> dict[str, str]:
    names = unet_resnet(f"{theirs}.0", f"{ours}.resnets.{block}")
    return names | (attention_names(f"{theirs}.1", f"{ours}.attentions.{block}") if attention else {})


def unet_resnet(theirs: str, ours: str) -> dict[str, str]:
    layers = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2"}
    layers |= {"out_layers.3": "conv2", "skip_connection": "conv_shortcut"}
    return {f"{theirs}.{a}": f"{ours}.{b}" for a, b in layers.items()}


def attention_names(theirs: str, ours: str) -> dict[str, str]:
    return {theirs: ours, f"{theirs}.norm": f"{ours}.group_norm"}
