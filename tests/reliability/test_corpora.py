"""Damaged images, labels, videos, checkpoints and configurations: read, or refused with one line; never changed."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from configs.schema import Stage2Config
from data.images import inspect_image, read_rgb
from data.labels import parse_label_file
from data.sources import Frame, Skipped, list_sources, read_frames
from loading.load_sr import load_sr
from models import build_sr
from tests.prediction.running import draw_video
from utils.checkpoint import load_checkpoint, save_network
from utils.config import load_config
from utils.errors import UserError

PIXELS, FRAMES = 1_000_000, 8
SAVED = {"PNG": ["L", "RGB", "RGBA", "P", "I;16"], "JPEG": ["L", "RGB", "CMYK"], "WEBP": ["RGB"], "BMP": ["RGB"],
         "TIFF": ["L", "RGB", "CMYK", "I;16"], "GIF": ["P"]}  # fmt: skip
WORDS = ("0", "1", "0.5", "-1", "1.01", "nan", "inf", "1e308", "2", "0.0", "-0.0", "x", "", "0,5", "\ufeff", "5", "\t")


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut off, zeroed, doubled or put in."""
    data, at = bytearray(content), chance.randrange(max(1, len(content)))
    length = chance.randint(1, 64)
    match chance.randrange(6):
        case 0:
            del data[at:]
        case 1:
            data[at : at + length] = bytes(length)
        case 2:
            data[at : at + length] = chance.randbytes(length)
        case 3:
            data[at:at] = chance.randbytes(length)
        case 4:
            del data[at : at + length]
        case _:
            for _ in range(chance.randint(1, 8)):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def image_bytes(kind: str, mode: str, chance: random.Random) -> bytes:
    size = chance.randint(1, 24), chance.randint(1, 24)
    noise = np.random.default_rng(chance.randrange(2**31)).integers(0, 65535, size, dtype=np.uint16)
    image = Image.fromarray(noise) if mode == "I;16" else Image.fromarray((noise % 256).astype(np.uint8)).convert(mode)
    stream = BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def tried_on(path: Path, contents: list[bytes], read: Callable[[Path], object]) -> tuple[int, int, str]:
    """(outcomes as they should be, files read, the first other error) over files of these contents."""
    good, whole, first = 0, 0, ""
    for content in contents:
        path.write_bytes(content)
        try:
            read(path)
            whole += 1
        except UserError as error:
            good -= path.name not in str(error)
        except Exception as error:
            first, good = first or f"{type(error).__name__}: {error}"[:120], good - 1
        good += hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(content).digest()
    return good, whole, first


def read_image(path: Path) -> None:
    inspect_image(path, PIXELS)
    image = read_rgb(path, PIXELS)
    assert image.ndim == 3 and image.dtype == np.uint8


def test_images(tmp_path: Path, count, record):
    tried, chance = count(60, 3000), random.Random(0)
    kinds = [(kind, mode) for kind, modes in SAVED.items() for mode in modes]
    contents = [damaged(image_bytes(*kinds[i % len(kinds)], chance), chance) for i in range(tried)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        good, whole, first = tried_on(tmp_path / "a.png", contents, read_image)
    note = f"{whole} still readable{'; ' * bool(first)}{first}"
    record("Corpora", "damaged images: read or one clear error, file unchanged", good, tried, note)


def read_labels(path: Path) -> None:
    classes, boxes = parse_label_file(path, 2)
    assert ((classes >= 0) & (classes < 2)).all() and np.isfinite(boxes).all() and (boxes[:, 2:] > 0).all()
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])
    assert boxes.shape[0] == 0 or (corners.min() > -1e-6 and corners.max() < 1 + 1e-6)


def test_labels(tmp_path: Path, count, record):
    tried, chance = count(300, 10_000), random.Random(0)

    def line() -> str:
        if chance.random() < 0.5:
            return f"{chance.randint(0, 1)} " + " ".join(f"{chance.random():.4f}" for _ in range(4))
        return " ".join(chance.choice(WORDS) for _ in range(chance.choice((4, 5, 5, 5, 6, 7, 9))))

    texts = [chance.choice(("\n", "\r\n")).join(line() for _ in range(chance.randint(0, 3))) for _ in range(tried)]
    contents = [text.encode() if chance.random() < 0.9 else damaged(text.encode() or b"0", chance) for text in texts]
    good, whole, first = tried_on(tmp_path / "a.txt", contents, read_labels)
    note = f"{whole} parsed{'; ' * bool(first)}{first}"
    record("Corpora", "label files: boxes inside the image, or one clear error", good, tried, note)


def test_videos(tmp_path: Path, count, record, capfd):
    tried, chance, good, frames = count(4, 100), random.Random(0), 0, 0
    draw_video(tmp_path / "whole.mp4", FRAMES)
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "in").mkdir()
    for _ in range(tried):
        path = tmp_path / "in" / "a.mp4"
        path.write_bytes(damaged(whole, chance))
        items = list(read_frames(list_sources(path), PIXELS))
        read = sum(isinstance(item, Frame) for item in items)
        frames, good = frames + read, good + (read == FRAMES or any(isinstance(item, Skipped) for item in items))
    record("Corpora", "damaged videos: frames, and a word where they end early", good, tried, f"{frames} frames read")


def test_checkpoints(tmp_path: Path, count, record):
    tried, chance, silent, refused = count(20, 400), random.Random(0), 0, 0
    network, path = build_sr("espcn", 2, {"n_feats": 4}), tmp_path / "a.pth"
    save_network(path, "sr", "espcn", network.spec["args"], network.state_dict(), {})
    whole, before = path.read_bytes(), load_checkpoint(path)
    for _ in range(tried):
        content = damaged(whole, chance)
        path.write_bytes(content)
        try:
            found = load_checkpoint(path)
            equal = all(torch.equal(x, found["weights"][key]) for key, x in before["weights"].items())
            silent += not equal or found["args"] != before["args"]
        except UserError as error:
            refused += path.name in str(error)
        else:
            refused += 1
    what = "damaged checkpoints: refused by name, or all that matters is as it was"
    record("Corpora", what, refused - silent, tried, f"{silent} silently loaded with other content")


def test_published_weights(tmp_path: Path, count, record):
    from loading.shipped_weights import FOLDER

    tried, chance = count(6, 200), random.Random(0)
    whole = (FOLDER / "espcn_8_x4.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    contents = [damaged(whole[:header], chance) + whole[header:] for _ in range(tried)]
    good, loaded, first = tried_on(tmp_path / "a.safetensors", contents, load_sr)
    note = f"{loaded} loaded{'; ' * bool(first)}{first}"
    record("Corpora", "safetensors with a damaged header: one clear error or weights", good, tried, note)


def test_configurations(tmp_path: Path, count, record):
    tried, chance = count(100, 10_000), random.Random(0)
    whole = (Path(__file__).resolve().parents[2] / "configs" / "stage2_sr_pretrain.yaml").read_bytes()
    contents = [damaged(whole, chance) for _ in range(tried)]
    good, loaded, first = tried_on(tmp_path / "a.yaml", contents, lambda path: load_config(Stage2Config, path))
    note = f"{loaded} still valid{'; ' * bool(first)}{first}"
    record("Corpora", "damaged configurations: read or one clear error", good, tried, note)
