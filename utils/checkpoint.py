"""Checkpoints that survive kills and tell on damage: written in one step, checksummed, read without executing code.

A network checkpoint says how to rebuild itself: {"kind", "name", "args", "weights", "meta"}.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.atomic_file import replace_file
from utils.errors import UserError

KINDS = ("sr", "detector", "system")
_CHECKSUM = "checksum"
# Of what a file holds: bytes per byte of the file and beyond that, containers in one another, values.
MOST_GROWTH, SLACK, DEEPEST, MOST_VALUES = 20, 10_000_000, 50, 1_000_000
MOST_PICKLED, PICKLED_OF_A_PART = 300_000, 2_000  # bytes, each of which can take microseconds to read
SAVE_ALONE = (
    "open it where its own code is and save the state dict alone: torch.save(network.state_dict(), 'weights.pth')"
)
_MADE_BY = {
    "yolo_pretrained_hr.pth": "stage1_pretrain_yolo.py",
    "sr_fast_pretrained.pth": "stage2_pretrain_sr.py",
    "sr_quality_pretrained.pth": "stage2_pretrain_sr.py",
    "sr_fast_best.pth": "stage2_pretrain_sr.py",
    "sr_quality_best.pth": "stage2_pretrain_sr.py",
    "conditional_sr_yolo_jointly_tuned.pth": "stage3_finetune_joint.py",
}


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names the file, what is wrong with it, and what to do."""


# ------------------------------------------------------------------------------------------------------ save and load


def save_checkpoint(path: str | Path, payload: dict[str, Any], keep_as: Path | None = None) -> None:
    """Write a payload of plain types and tensors in one step; a kill leaves the old file or the new one.

    Args:
        path: file to create or replace; its folder is created.
        payload: None, bool, int, float, str, list, tuple, dict (keys str or int) and dense tensors, nested;
            NumPy scalars become Python numbers, tensors go to the CPU.
        keep_as: name in the same folder under which the replaced file stays available.

    Raises:
        TypeError: another type inside, named with its place.
        OSError: the folder cannot be written, or the disk is full.
    """
    if _CHECKSUM in payload:
        raise TypeError(f"payload key {_CHECKSUM!r} is reserved")
    plain = _plain(payload, "payload")
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()  # once, for all the copies
    plain[_CHECKSUM] = checksum(plain)
    replace_file(path, lambda file: torch.save(plain, file), keep_as)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, bit for bit, tensors on the CPU; nothing in the file is executed.

    Raises:
        CheckpointError: missing, truncated, damaged, a pickle with code in it, or no checkpoint of this project.
    """
    path = Path(path)
    _check_container(path)
    try:
        with path.open("rb") as file:  # from the path PyTorch would judge by the suffix
            payload = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); check disk and permissions"
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path}: contains Python objects or code ({refused_type(error) or 'unnamed'}), refused and not "
                f"executed; use a file that this project wrote, or {SAVE_ALONE}"
            ) from error
        raise CheckpointError(f"{path}: damaged ({_first_line(error)}); {_replace_it(path)}") from error
    if not isinstance(payload, dict) or not isinstance(payload.get(_CHECKSUM), str):
        raise CheckpointError(f"{path}: not a checkpoint of this project ({_lacks(payload)}")
    refuse_hostile(path, payload)
    stored = payload.pop(_CHECKSUM)
    try:
        found = checksum(payload)
    except (TypeError, RuntimeError) as error:  # types or tensors that no checkpoint holds
        raise CheckpointError(f"{path}: damaged ({_first_line(error)}); {_replace_it(path)}") from error
    if stored != found:
        raise CheckpointError(f"{path}: damaged (its content does not match its checksum); {_replace_it(path)}")
    return payload


def save_network(
    path: str | Path, kind: str, name: str, args: dict[str, Any], weights: dict[str, Tensor], meta: dict[str, Any]
) -> None:
    """Write a checkpoint that rebuilds itself.

    Args:
        path: file to create or replace.
        kind: sr, detector or system.
        name: name of the network within its kind.
        args: keyword arguments it is built with, plain types.
        weights: its state dict.
        meta: where it comes from: stage, seed, metrics; plain types.
    """
    if kind not in KINDS:
        raise UserError(f"kind must be one of {', '.join(KINDS)}, found {kind!r}")
    save_checkpoint(path, {"kind": kind, "name": name, "args": args, "weights": weights, "meta": meta})


def load_network(path: str | Path, kind: str | None = None) -> dict[str, Any]:
    """Payload of `save_network`: {"kind", "name", "args", "weights", "meta"}.

    Args:
        path: checkpoint file.
        kind: sr, detector or system; None takes any.

    Raises:
        CheckpointError: unreadable (see `load_checkpoint`), no network checkpoint, or one of another kind.
    """
    payload = load_checkpoint(path)
    missing = [key for key in ("kind", "name", "args", "weights", "meta") if key not in payload]
    if missing:
        raise CheckpointError(
            f"{path}: not a network checkpoint ({', '.join(missing)} missing; a training state?); give the .pth file "
            "that the stage script wrote at its end"
        )
    if kind is not None and payload["kind"] != kind:
        raise CheckpointError(
            f"{path}: expected a checkpoint of kind {kind!r}, found {payload['kind']!r} ({payload['name']}); "
            "give the file of the right stage"
        )
    return payload


# --------------------------------------------------------------------------------------------------------- inner parts


def checksum(payload: Any) -> str:
    """SHA-256, in hex, over types, keys, values and tensor bytes in a fixed traversal.

    Raises:
        TypeError: a type that checkpoints do not hold.
    """
    digest = hashlib.sha256()
    _feed(digest, payload)
    return digest.hexdigest()


def refuse_other_files(path: Path) -> None:
    """Raises CheckpointError for what holds no weights at all: a web page, a pointer, another text, an archive; and for
    one that unpacks to far more than its size."""
    with path.open("rb") as file:
        start = file.read(512)
    names, unpacked, pickled, size = ["data.pkl"], 0, 0, path.stat().st_size
    text = start.decode("utf-8", "ignore")
    try:
        with zipfile.ZipFile(path) as archive:
            names, unpacked = archive.namelist(), sum(part.file_size for part in archive.infolist())
            pickled = sum(part.file_size for part in archive.infolist() if part.filename.endswith("data.pkl"))
    except zipfile.BadZipFile:  # no archive, or one that was cut short: its reader says so
        pass
    except Exception as error:  # a damaged directory can fail in any way
        raise CheckpointError(f"{path}: damaged ({_first_line(error)}); {_replace_it(path)}") from error
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        what = "a web page; download the file itself, signed in where the site asks for it"
    elif start.startswith(b"version https://git-lfs"):
        what = "a Git-LFS pointer; fetch the file itself (git lfs pull)"
    elif len(text.encode()) > max(4, len(start) - 4) and all(c.isprintable() or c in "\t\r\n" for c in text):
        what = f"text that begins with {text[:40]!r}; download the file itself"
    elif not any(name.endswith("data.pkl") for name in names):
        what = f"an archive of {', '.join(names[:3])}; unpack it and name the weight file in it"
    elif unpacked > MOST_GROWTH * size + SLACK:
        what = f"{size:,} bytes that unpack to {unpacked:,}; get it anew from its source"
    elif pickled > MOST_PICKLED + PICKLED_OF_A_PART * len(names):
        what = f"{pickled:,} bytes of values in one another around {len(names)} parts; {SAVE_ALONE}"
    else:
        return
    raise CheckpointError(f"{path}: no weights and not a checkpoint of this project, but {what}")


def refuse_hostile(path: Path, content: Any) -> None:
    """Raises CheckpointError for content that grows when it is used: a tensor may repeat one stored number a billion
    times, and a list may hold itself over and over."""
    left, values, limit = [(content, 0)], 0, MOST_GROWTH * path.stat().st_size + SLACK
    while left:
        value, depth = left.pop()
        values += 1
        if isinstance(value, dict | list | tuple):
            left += [(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)]
        limit -= value.nbytes if isinstance(value, Tensor) else 0
        if limit < 0 or depth > DEEPEST or values + len(left) > MOST_VALUES:
            what = "tensors that are far larger than the file" if limit < 0 else "too many values, or nested too deeply"
            raise CheckpointError(f"{path}: damaged or made to fill the memory ({what}); get it anew from its source")


def refused_type(error: Exception) -> str:
    """What `torch.load` refused to rebuild, such as "argparse.Namespace"; empty where that is not the matter."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found else ""


def _feed(digest, value: Any) -> None:
    """Every part is preceded by its type and length, so that no two payloads give the same bytes."""
    if isinstance(value, Tensor):
        flat = value.detach().contiguous().reshape(-1)
        _feed(digest, f"{value.dtype}{tuple(value.shape)}")
        digest.update(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        digest.update(b"d" + struct.pack("<q", len(value)))
        for key, item in value.items():
            _feed(digest, key)
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        digest.update((b"l" if isinstance(value, list) else b"t") + struct.pack("<q", len(value)))
        for item in value:
            _feed(digest, item)
    elif isinstance(value, float):
        digest.update(b"f" + struct.pack("<d", value))
    elif value is None or isinstance(value, bool | int | str):
        text = str(value).encode("utf-8", "surrogatepass")
        digest.update(type(value).__name__.encode() + struct.pack("<q", len(text)) + text)
    else:
        raise TypeError(f"unexpected {type(value).__name__}")


def _plain(value: Any, place: str) -> Any:
    """Copy with plain containers and CPU tensors; a tensor that views a larger storage is cut out of it."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.is_quantized:
            raise TypeError(f"{place} is a {value.layout} tensor; store a dense one")
        value = value.detach().contiguous()  # before the copy, which need not have ended when it returns
        if value.device.type != "cpu":
            return value.to("cpu", non_blocking=True)
        return value.clone() if value.untyped_storage().nbytes() != value.nbytes else value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        wrong = [key for key in value if type(key) not in (str, int)]
        if wrong:
            raise TypeError(f"{place} has the key {wrong[0]!r}; keys must be str or int")
        return {key: _plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{place}[{i}]") for i, item in enumerate(value))
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{place} is a {type(value).__name__}; a checkpoint holds plain types and tensors only")


def _check_container(path: Path) -> None:
    """Tell missing, empty, truncated and foreign files apart before PyTorch opens them."""
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        maker = _MADE_BY.get(path.name)
        where = f"{maker} writes it" if maker else "the stage scripts write such files into their run folders"
        raise CheckpointError(f"{path}: {kind}; correct the path or train it first ({where})")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    refuse_other_files(path)
    if start[:1] == b"\x80":
        raise CheckpointError(f"{path}: a bare pickle, which can contain code, refused and not executed; {SAVE_ALONE}")
    if start[:2] != b"PK" and start:
        raise CheckpointError(f"{path}: not a checkpoint of this project; give a .pth file that a stage script wrote")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: truncated ({path.stat().st_size} bytes); {_replace_it(path)}")


def _lacks(payload: Any) -> str:
    """What a file of plain types and tensors lacks to be a checkpoint of this project, and the remedy."""
    text = "it carries no checksum); give a .pth file that one of the stage scripts wrote"
    if not isinstance(payload, dict) or "kind" in payload:
        return text
    parts = [payload, *(part for part in payload.values() if isinstance(part, dict))]
    if not any(isinstance(value, Tensor) for part in parts for value in part.values()):
        return text
    return (
        "a plain state dict: kind, name and args, which say how to build the network, and the checksum are missing); "
        "give the .pth file that a stage script wrote, or these weights where the configuration names the network"
    )


def _replace_it(path: Path) -> str:
    maker = _MADE_BY.get(path.name)
    return f"copy it again from its source, or make it again with {maker}" if maker else "use another copy of it"


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120]}" if text else type(error).__name__
