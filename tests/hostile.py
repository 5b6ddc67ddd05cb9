"""Files that are small and ask for everything: what reads them has to refuse, quickly and in little memory."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from data.data_spec import load_data_spec
from data.images import inspect_image
from loading.checkpoints import load_stage2
from loading.detector_weights import load_detector
from loading.load_sr import load_sr
from loading.systems import load_system
from models.detector_yolo import YoloDetector, model_yaml
from utils.checkpoint import load_checkpoint, save_network
from utils.config import load_config

BILLION = 10**9
DETECTOR = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]]] * 3, "head": [[[0, 1, 2], 1, "Detect", ["nc"]]]}


def torch_archive(path: Path, pickled: bytes, records: dict[str, bytes] | None = None) -> Path:
    """A file as torch.save writes it, with a pickle of our own; `records` are compressed, which PyTorch never does."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/version", "3\n")
        for name, content in (records or {}).items():
            archive.writestr(f"a/{name}", content, zipfile.ZIP_DEFLATED, 1)
    return path


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def doubled(times: int) -> list:
    """A list of a list ... that holds 2**times values in a few bytes."""
    value: list = [0]
    for _ in range(times):
        value = [value, value]
    return value


def png(path: Path, width: int, height: int, chunks: bytes = b"") -> Path:
    """A PNG of one colour, black: a megabyte of zeros takes a kilobyte."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    extra = chunk(b"zTXt", chunks) if chunks else b""
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def network(path: Path, kind: str, name: str, args: dict) -> Path:
    save_network(path, kind, name, args, {"w": torch.zeros(1)}, {})
    return path


def st(path: Path, metadata: dict[str, str]) -> Path:
    save_file({"w": torch.zeros(1)}, path, metadata)
    return path


def detector(**changes: object) -> dict:
    return DETECTOR | changes


def row(*values: object) -> dict:
    """The detector with another first layer."""
    return detector(backbone=[list(values), *DETECTOR["backbone"][1:]])


def laughs(levels: int = 9) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"names: *a{levels - 1}", "train: images", f"kpt_shape: *a{levels - 1}"])


def any_weights(path: Path) -> None:
    load_sr(path)


# name -> (file, made by, what reads it)
CASES: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
    "nested lists": (
        "n.pth", lambda p: torch_archive(p, b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b"."), any_weights,
    ),
    "lists that double": ("d.pth", lambda p: saved(p, {"w": doubled(60), "checksum": ""}), load_checkpoint),
    "lists that double, community": ("d.pth", lambda p: saved(p, {"params": {"w": doubled(60)}}), any_weights),
    "an expanded tensor": (
        "e.pth", lambda p: saved(p, {"w": torch.zeros(1).expand(100_000, 100_000), "checksum": ""}), load_checkpoint,
    ),
    "an expanded tensor, community": (
        "e.pth", lambda p: saved(p, {"body.0.weight": torch.zeros(1).expand(100_000, 100_000)}), any_weights,
    ),
    "a compressed archive": (
        "z.pth", lambda p: torch_archive(p, b"\x80\x02}.", {"data/0": bytes(200_000_000)}), any_weights,
    ),
    "a compressed archive as a detector": (
        "z.pt", lambda p: torch_archive(p, b"\x80\x02}.", {"data/0": bytes(200_000_000)}),
        lambda p: load_detector("yolo11n.yaml", p, ["a"]),
    ),
    "a billion blocks": (
        "b.pth", lambda p: network(p, "sr", "edsr", {"scale": 4, "n_blocks": BILLION, "n_feats": 8}), load_stage2,
    ),
    "a billion blocks, safetensors": (
        "b.safetensors",
        lambda p: st(p, {"name": "edsr", "args": json.dumps({"scale": 4, "n_blocks": BILLION, "n_feats": 1})}),
        any_weights,
    ),
    "blocks of great width": (
        "w.pth", lambda p: network(p, "sr", "edsr", {"scale": 4, "n_blocks": 4, "n_feats": 20_000}), load_stage2,
    ),
    "a number of blocks by a key": (
        "k.pth", lambda p: saved(p, {f"body.{BILLION}.body.0.weight": torch.zeros(64, 64, 3, 3),
                                     "head.0.weight": torch.zeros(64, 3, 3, 3),
                                     "body.0.body.0.weight": torch.zeros(64, 64, 3, 3)}), any_weights,
    ),
    "nested metadata": ("m.safetensors", lambda p: st(p, {"name": "edsr", "args": "[" * 200_000}), any_weights),
    "a billion repeats in a system": (
        "s.pth",
        lambda p: network(p, "system", "system", {
            "front": {"name": "bicubic", "args": {"scale": 4}},
            "detector": {"model": row(-1, BILLION, "C3", [8]), "names": ["a"]},
        }),
        load_system,
    ),
    "a detector's TorchVision": (
        "t.yaml", lambda p: text(p, yaml.safe_dump(row(-1, 1, "TorchVision", [512, "resnet18", "DEFAULT"]))),
        lambda p: YoloDetector(str(p), ["a"]),
    ),
    "a detector's billion repeats": (
        "r.yaml", lambda p: text(p, yaml.safe_dump(row(-1, BILLION, "C3", [8]))), lambda p: model_yaml(str(p)),
    ),
    "a detector's great width": (
        "x.yaml", lambda p: text(p, yaml.safe_dump(detector(width_multiple=1e6))), lambda p: model_yaml(str(p)),
    ),
    "a detector's width as text": (
        "x.yaml", lambda p: text(p, yaml.safe_dump(row(-1, 1, "Conv", ["1e9", 3]))), lambda p: model_yaml(str(p)),
    ),
    "a detector's channels": (
        "c.yaml", lambda p: text(p, yaml.safe_dump(detector(channels=BILLION))), lambda p: model_yaml(str(p)),
    ),
    "nested configuration": ("c.yaml", lambda p: text(p, "[" * 100_000), lambda p: load_config(dict, p)),
    "a nested data set": ("d.yaml", lambda p: text(p, "names: " + "[" * 100_000), load_data_spec),
    "a laughing data set": ("l.yaml", lambda p: text(p, laughs()), load_data_spec),
    "a billion classes": ("n.yaml", lambda p: text(p, f"nc: {BILLION}\ntrain: images\n"), load_data_spec),
    "a large data set": ("g.yaml", lambda p: text(p, "# " + "x" * 5_000_000), load_data_spec),
    "a PNG of many pixels": ("p.png", lambda p: png(p, 12_000, 12_000), lambda p: inspect_image(p, 100_000_000)),
    "a PNG's text": (
        "t.png", lambda p: png(p, 8, 8, b"k\0\0" + zlib.compress(bytes(100_000_000))),
        lambda p: inspect_image(p, 100_000_000),
    ),
}  # fmt: skip
