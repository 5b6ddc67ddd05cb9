"""What users of `yolo predict` type -> the options of inference.py; free of torch, so that --help is fast."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from configs.inference_schema import InferenceConfig
from utils.errors import UserError

# With postponed annotations a field's type is its text.
KINDS = {field.name: str(field.type) for field in fields(InferenceConfig)}
# Ultralytics' name -> ours; `!`: the opposite.
ALIASES = {
    "save": "save_images", "nosave": "!save_images", "show_labels": "!hide_labels", "show_conf": "!hide_conf",
    "conf_thres": "conf", "iou_thres": "iou", "line_thickness": "line_width", "batch_size": "batch",
}  # fmt: skip
ELSEWHERE = {
    "model": "name a trained system with --weights, or a detector with --detector",
    "imgsz": "images are taken as large as they are; --scale says how far they are enlarged",
    "show": "nothing is shown on a screen; pictures are saved",
    "exist_ok": "a new folder is made for every run",
    "save_frames": "save_sr saves the frames of a video",
}
OPPOSITE = {"true": "false", "false": "true"}


def translate(argv: list[str]) -> list[str]:
    """`conf=0.3` -> `--conf=0.3`, `--source a.png b.png` -> `--source=["a.png", "b.png"]`; repeated lists are one list.

    The value that follows an option stays as it is, also where it looks like another one.

    Raises:
        UserError: an option of Ultralytics that has no counterpart; the message says what there is instead.
    """
    result: list[str] = []
    lists: dict[str, list[str]] = {}
    rest = [*argv]
    while rest:
        token = rest.pop(0)
        key, equals, value = token.partition("=")
        if not key.startswith("--"):
            if not equals or not _plain(key).isidentifier():
                result.append(token)
                continue
            key = f"--{key}"
        option = _plain(key[2:])
        if option in ELSEWHERE:
            raise UserError(f"unknown option --{option}; {ELSEWHERE[option]}")
        name = ALIASES.get(option, option).removeprefix("!")
        kind = KINDS.get(name, "str")
        values = [value] if equals else []
        if "list[" in kind:
            while rest and not _is_option(rest[0]):
                values.append(rest.pop(0))
            lists.setdefault(name, []).extend(values)
        elif not equals and rest and not rest[0].startswith("--") and not (kind == "bool" and _is_option(rest[0])):
            values.append(rest.pop(0))
        if name != option:
            value = values[0] if values else "true"
            opposite = ALIASES[option].startswith("!")
            result.append(f"--{name}={OPPOSITE.get(value.lower(), value) if opposite else value}")
        elif "list[" not in kind:
            result += [f"{key}={value}"] if equals else [key, *values]
    return result + [f"--{name}={_joined(values, KINDS[name])}" for name, values in lists.items()]


def _joined(values: list[str], kind: str) -> str:
    """Words behind an option that takes one value or a list."""
    if len(values) == 1 and ("str" in kind or "," not in values[0] or values[0].startswith("[")):
        return values[0]
    return json.dumps(values) if "str" in kind else f"[{', '.join(values)}]"


def _is_option(token: str) -> bool:
    """`--conf`, or `conf=0.3` for an option that there is, and no file of that name."""
    key, equals, _ = token.partition("=")
    known = _plain(key) in KINDS.keys() | ALIASES.keys() | ELSEWHERE.keys()
    return token.startswith("--") or (bool(equals) and known and not Path(token).exists())


def _plain(option: str) -> str:
    return option.replace("-", "_")


def check_options(config: InferenceConfig) -> None:
    """Options that must be given, and those that exclude each other.

    Raises:
        UserError: naming the option, its value and the remedy.
    """
    if config.detector is None:
        if not config.weights and not config.sr_only:
            raise UserError(
                "no weights given; name a checkpoint of stage 3 with --weights, or a detector with --detector"
            )
        if config.sr != InferenceConfig.sr or config.detector_model is not None:
            raise UserError("sr and detector_model belong to --detector: add it, or leave them out")
        if not config.sr_only and config.scale is not None:
            raise UserError("scale belongs to --sr-only and --detector: add one of them, or leave it out")
    elif config.weights or config.sr_only:
        raise UserError("detector stands instead of weights, and detects; leave out it, or --weights and --sr-only")
    if not config.sr_only and (config.self_ensemble or config.tile or config.cmsr):
        raise UserError("self_ensemble, tile and cmsr belong to --sr-only: add it, or leave them out")
    if config.sr_only:
        _check_sr_only(config)
    if config.reuse and config.batch > 1:
        raise UserError("reuse compares every frame with those before it; leave out --batch")
    if not config.reuse and (config.reuse_threshold, config.reuse_refresh) != (
        InferenceConfig.reuse_threshold, InferenceConfig.reuse_refresh
    ):  # fmt: skip
        raise UserError("reuse_threshold and reuse_refresh belong to --reuse: add it, or leave them out")
    if config.cmsr and config.tile:
        raise UserError("cmsr and tile exclude each other: CMSR renders whole images; leave one of them out")
    if config.save_conf and not config.save_txt:
        raise UserError("save_conf adds the score to the lines of --save-txt: add that, or leave it out")
    if not out_folder(config).name:
        raise UserError(f"out is {config.out!r}; name a new folder")


def _check_sr_only(config: InferenceConfig) -> None:
    if config.halo is not None:
        raise UserError("halo belongs to systems with a masker; with --sr-only it is --tile_halo")
    names = ("policy", "profile", "save_txt", "save_conf", "save_json", "save_mask", "save_crop", "save_images",
             "line_width", "hide_labels", "hide_conf", "conf", "iou", "max_det", "classes", "agnostic_nms", "reuse",
             "batch", "backend")  # fmt: skip
    given = [name for name in names if getattr(config, name) != getattr(InferenceConfig, name)]
    if given:
        raise UserError(f"{', '.join(given)} belong to detection; leave out either them or --sr-only")


def out_folder(config: InferenceConfig) -> Path:
    """The run folder that is asked for: `out`, or `project`/`name` as with `yolo predict`."""
    out = Path(config.out)
    if config.project is None and config.name is None:
        return out
    return Path(out.parent if config.project is None else config.project) / (config.name or out.name)
