"""Small drawn data sets in Pascal VOC and COCO, and the converter's command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from data.prepare_detection_data import main


def picture(path: Path, value: int = 90, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 80, 70)).save(path)
    return path


def value_of(path: Path) -> int:
    """What `picture` was told, so that one picture can be told from another."""
    return round(float(np.asarray(Image.open(path))[..., 0].mean()))


def entry(number: object, name: str, **more) -> dict:
    return {"id": number, "file_name": name, "width": 40, "height": 30} | more


def coco(folder: Path, names: list[str], annotations: list[dict] | None = None, categories: list[dict] | None = None):
    """A COCO file of these images, each with one object unless `annotations` are given."""
    boxes = [{"image_id": i, "category_id": 1, "bbox": [4, 3, 10 + i, 15]} for i in range(len(names))]
    return {
        "images": [entry(i, name) for i, name in enumerate(names)],
        "annotations": boxes if annotations is None else annotations,
        "categories": categories or [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}],
    }


def run_coco(folder: Path, *options: str, images: str = "pictures", out: str = "out", **splits: dict) -> int:
    arguments = []
    for split, content in splits.items():
        (folder / f"{split}.json").write_text(json.dumps(content))
        arguments += ["--split", split, str(folder / f"{split}.json"), str(folder / images)]
    return main(["coco", *arguments, "--out", str(folder / out), *options])


def voc_xml(objects: str, filename: str = "", size: tuple[int, int] = (40, 30)) -> str:
    named = f"<filename>{filename}</filename>" if filename else ""
    sizes = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{named}{sizes}{objects}</annotation>"


def bndbox(name: str = "car", box: tuple = (4, 3, 20, 18)) -> str:
    keys = zip(("xmin", "ymin", "xmax", "ymax"), box)
    edges = "".join(f"<{key}>{value}</{key}>" for key, value in keys)
    return f"<object><name>{name}</name><bndbox>{edges}</bndbox></object>"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def run_voc(folder: Path, *options: str, out: str = "out") -> int:
    base = ["voc", "--images", str(folder / "images"), "--annotations", str(folder / "xml")]
    return main([*base, "--out", str(folder / out), *options])


def rows(file: Path) -> np.ndarray:
    return np.array([line.split() for line in file.read_text().splitlines()], float).reshape(-1, 5)
