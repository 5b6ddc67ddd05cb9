"""The card beside a published weight file: what the network is, what it was trained on and how, what it reaches."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import PurePath

from torch import nn

from configs.schema import NetworkConfig, OptimConfig, Stage2Config
from data.sampler import EpochBatchSampler
from training.tasks import SR_PHASES
from utils.config import changed_keys

ROLES = {"sr_fast": "optim_fast", "sr_quality": "optim_quality"}
UNTOLD = ("train", "val", "test", "images", "hr", "gt")  # names of folders in every data set
DATA_KEYS = ("data.train", "data.lr_train", "data.val", "data.lr_val", "loss.perceptual_weights")
LR = {
    "bicubic": "antialiased bicubic interpolation (MATLAB's imresize) of the whole HR image",
    "realesrgan": "two rounds of random blur, resizing, noise and JPEG (Real-ESRGAN, arXiv:2107.10833)",
}


def card_text(
    name: str, network: nn.Module, rows: Sequence[dict], meta: dict, config: Stage2Config, made: dict, seconds: float
) -> str:
    """The card as Markdown; folders appear by their last component only.

    Args:
        name: of the weight file, without its ending.
        network: what the file holds.
        rows: of the written file on every validation set, as `evaluation.sr_evaluation.SREvaluation.rows` makes them.
        meta: of the stage-2 checkpoint.
        config: settings of the run.
        made: environment.json of the run; may be empty.
        seconds: training time, 0 where it is not known.
    """
    role, spec, arbitrary = meta["role"], network.spec, network.capabilities.takes_size
    args = {key: value for key, value in spec["args"].items() if key != "scale"}
    cells = {
        "network": f"`{spec['name']}`, `{flow(args)}`, {rows[0]['params']:,} parameters" + macs(rows),
        "data": data(config, arbitrary),
        "protocol": protocol(config, network, meta),
        "checkpoint": checkpoint(config, meta, [row["dataset"] for row in rows]),
    }
    if where := machine(made, seconds):
        cells["training"] = where
    for row in rows:
        factor = f" x{row['scale']:g}" if arbitrary else ""
        images = f"{row['images']} images, LR {'from its folder' if row['lr'] == 'folder' else 'by bicubic'}"
        cells[f"{row['dataset']}{factor}"] = (
            f"{row['psnr_y']:.2f} dB / {row['ssim_y']:.4f}: PSNR / SSIM on Y, border {row['border']}, {images}"
        )
    table = "".join(f"| {key} | {value} |\n" for key, value in cells.items())
    title = f"{name}: {spec['name']}, " + ("any scale" if arbitrary else f"x{network.scale}")
    commands = "\n".join([training_command(config, role), comparison_command(name, rows, config)])
    return f"# {title}\n\n| | |\n|---|---|\n{table}\nTrained and measured by\n\n```\n{commands}\n```\n"


def macs(rows: Sequence[dict]) -> str:
    """GMAC for an output of 1280 x 720, where they are known."""
    known = {row["scale"]: row["gmacs"] for row in rows if row["gmacs"] is not None}
    shown = [f"{gmacs:.2f}" + (f" at x{scale:g}" if len(known) > 1 else "") for scale, gmacs in known.items()]
    return f", {', '.join(shown)} GMAC for an output of 1280x720" if shown else ""


def data(config: Stage2Config, arbitrary: bool) -> str:
    """Training images and where their LR versions come from."""
    names, lr_names = (
        " and ".join(place(folder) for folder in folders) for folders in (config.data.train, config.data.lr_train)
    )
    if lr_names:
        return f"{names}, LR read from {lr_names}"
    kind = config.data.degradation.kind
    if not arbitrary or not config.data.scales:
        return f"{names}, LR by {LR[kind]}"
    lowest, highest = config.data.scales
    lr = "antialiased bicubic interpolation of the patch" if kind == "bicubic" else LR[kind]
    return f"{names}, LR by {lr}, factors from {lowest:g} to {highest:g}"


def protocol(config: Stage2Config, network: nn.Module, meta: dict) -> str:
    """How this network was trained, in one line."""
    role = meta["role"]
    setting: NetworkConfig = getattr(config, role)
    optim: OptimConfig = getattr(config, ROLES[role])
    per_epoch, patch = steps_per_epoch(config, optim), config.data.patch
    steps = per_epoch * optim.epochs
    parts = ["`stage2_pretrain_sr.py`", loss(config, setting.name, network)]
    parts.append(f"AdamW, weight decay {optim.weight_decay:g}" if optim.weight_decay else "Adam")
    phase = "in the last phase " if setting.name in SR_PHASES else ""
    parts.append(f"{phase}{steps:,} steps of {optim.batch} patches of {patch} x {patch} LR pixels")
    parts.append(f"learning rate {optim.lr:g} {schedule(optim, per_epoch)}")
    if optim.warmup:
        parts.append(f"warm-up {optim.warmup:,} steps")
    if optim.clip_norm:
        parts.append(f"gradients clipped at norm {optim.clip_norm:g}")
    if optim.ema:
        parts.append(f"EMA {optim.ema:g}")
    parts += [config.run.precision, f"seed {meta['seed']}"]
    start = setting.weights or setting.init
    if start:
        parts.append(f"started from `{short(start)}`" + ("" if setting.weights else " (what fits of it)"))
    return ", ".join(parts)


def checkpoint(config: Stage2Config, meta: dict, reported: Sequence[str]) -> str:
    """Whether the best or the last weights are published, on which images they were chosen, and whether these are
    reported on too.

    Args:
        config: settings of the run.
        meta: of the stage-2 checkpoint; `step` where it is that of the best validation.
        reported: names of the data sets of the card.
    """
    optim: OptimConfig = getattr(config, ROLES[meta["role"]])
    validated = " and ".join(place(folder) for folder in config.data.val)
    same = sorted({PurePath(folder).name for folder in config.data.val} & set(reported))
    if "step" in meta and meta["step"] < steps_per_epoch(config, optim) * optim.epochs:
        text = f"weights of the best validation, after step {meta['step']:,}, chosen by the PSNR on {validated}"
        return f"{text}; **chosen on images that are reported below**: {', '.join(same)}" if same else text
    if not validated:
        return "weights of the last step"
    text = f"weights of the last step, no earlier one was chosen; validated on {validated} during training"
    return f"{text}; **reported below are images of these validations**: {', '.join(same)}" if same else text


def steps_per_epoch(config: Stage2Config, optim: OptimConfig) -> int:
    return EpochBatchSampler(config.data.samples_per_epoch, optim.batch, 0, 0, 0).steps


def loss(config: Stage2Config, trained: str, network: nn.Module) -> str:
    """What is minimised; networks that colour single pixels are trained there, some have a training of their own.

    Args:
        config: settings of the run.
        trained: name of the network that was trained, of which `network` may be a part.
        network: what the file holds.
    """
    setting, own = config.loss, SR_PHASES.get(trained)
    if own:
        return f"phases and losses of `{own.replace('.', '/')}.py`"
    if network.capabilities.samples and setting.queries:
        return f"L1 at {setting.queries:,} random pixels per HR patch"
    text = "L1" if setting.pixel == "l1" else f"Charbonnier (epsilon {setting.epsilon:g})"
    return text + (f" + {setting.perceptual:g} LPIPS" if setting.perceptual else "")


def schedule(optim: OptimConfig, per_epoch: int) -> str:
    if optim.schedule == "cosine":
        return f"with cosine decay to {optim.lr_final * optim.lr:g}"
    if not optim.milestones:
        return "throughout"
    return f"times {optim.gamma:g} after steps {', '.join(f'{epoch * per_epoch:,}' for epoch in optim.milestones)}"


def machine(made: dict, seconds: float) -> str:
    """Duration, processor, versions and commit, as far as they are known."""
    parts = [f"{seconds / 60:.1f} min, validations included"] if seconds else []
    if made:
        parts.append(", ".join(made["gpus"]) or f"{made['cpu']}, {made['threads']} of {made['cpu_cores']} cores")
        parts.append(f"PyTorch {made['versions']['torch']}, {made['date'][:10]}")
        if made["git"]:
            parts.append(f"commit {made['git']['commit'][:10]}" + (" with changes" if made["git"]["dirty"] else ""))
    return ", ".join(parts)


def training_command(config: Stage2Config, role: str) -> str:
    """Command that trains this network again: everything in which the settings differ from the defaults."""
    (other,) = ROLES.keys() - {role}
    options = []
    for key in changed_keys(Stage2Config(), config):
        if key.split(".")[0] not in (other, ROLES[other]):
            value = at(config, key)
            if key in DATA_KEYS:
                value = [f"datasets/{place(path)}" for path in value]
            elif key.split(".")[-1] in ("weights", "init") and value is not None:
                value = short(value)
            options += [f"--{key}", flow(value)]
    options += [f"--{other}.name", "bicubic", f"--{other}.args", "{}"]
    return shlex.join(["python", "stage2_pretrain_sr.py", *options])


def comparison_command(name: str, rows: Sequence[dict], config: Stage2Config) -> str:
    """Command that measures the published file again."""
    folders = flow([f"datasets/{row}" for row in dict.fromkeys(row["dataset"] for row in rows)])
    scales = list(dict.fromkeys(row["scale"] for row in rows))
    scale = f"{scales[0]:g}" if len(scales) == 1 else flow(scales)
    weights = f"weights/{name}.safetensors"
    return shlex.join(["python", "evaluate.py", "sr", "--weights", weights, "--hr", folders, "--scale", scale])


def place(path: str) -> str:
    """End of a folder's path, from the last name on that says something: hit_uav/images/train."""
    parts = PurePath(path).parts
    known = next((number for number, part in enumerate(reversed(parts), 1) if part.lower() not in UNTOLD), 1)
    return "/".join(parts[-known:])


def short(path: str) -> str:
    """Last two components of a path: names such as sr_quality_pretrained.pth say little by themselves."""
    path = PurePath(path)
    return "/".join([part for part in path.parts if part != path.anchor][-2:])


def flow(value: object) -> str:
    """A setting as YAML in one line, which the command line reads back."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def at(config: object, key: str) -> object:
    """Value of a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config
