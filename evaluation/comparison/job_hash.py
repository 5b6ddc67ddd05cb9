"""What a job's result depends on, as one hash: script version, every key, the content of files, the data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from configs.stage3_schema import Stage3Config
from data.data_spec import load_data_spec
from data.labels import label_path
from evaluation.comparison.jobs import STAGES, Job, resolved
from evaluation.comparison.plan_checks import USED_BY
from utils.config import FREE_ON_RESUME, config_to_dict

SPLITS = {"stage1": ("train", "val"), "stage3": ("train", "val")}
LATER = ("slices", "warm_up")  # sections of stage 3
TIMED = frozenset(["run.threads", "run.device"])  # change no figure but the milliseconds


def job_hash(job: Job, checkpoints: dict[str, str]) -> str:
    """SHA-256, in hex, over all that the result of a job depends on.

    Paths do not count, contents do: a file that a key names enters by its bytes, the data set by its file names, image
    sizes and label bytes. Keys that may differ between a run and its continuation are left out, and sections that say
    nothing for this `sr`: another SR_Fast trains no row again that has none.

    Args:
        job: with all jobs that it needs finished.
        checkpoints: path of the checkpoint of every job that it needs.
    """
    tree = config_to_dict(resolved(job, checkpoints))
    for name in unused_sections(job.stage, tree):
        tree.pop(name, None)  # not even its defaults count
    as_before(job.stage, tree)
    section = tree["data"]
    splits = SPLITS.get(job.stage) or (tree["split"],)
    data = data_hash(section.pop("yaml"), splits, section.pop("lr_folder", None))
    content = hashed_content(tree, FREE_ON_RESUME - TIMED if job.alone else FREE_ON_RESUME)
    text = json.dumps([job.stage, STAGES[job.stage].version, data, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def as_before(stage: str, tree: dict[str, Any]) -> None:
    """Leave out what older versions did not have where it says nothing: what they trained and measured stays found."""
    if stage == "stage3":
        defaults = config_to_dict(Stage3Config())
        for name in LATER:
            if name in tree and tree[name] == defaults[name]:
                del tree[name]
        if tree["upscale"] % 1 == 0:
            tree["upscale"] = int(tree["upscale"])
    if not tree["run"].get("deterministic", True):
        del tree["run"]["deterministic"]
    for options in tree.get("sliced", {}).values():
        if options.get("library", "") is None:
            del options["library"]


def unused_sections(stage: str, tree: dict[str, Any]) -> list[str]:
    """Sections of a stage 3 that say nothing for its `sr`; none of other stages."""
    if stage != "stage3":
        return []
    return [section for section, values in USED_BY.items() if tree["sr"] not in values]


def hashed_content(value: Any, free: Container[str], name: str = "") -> Any:
    """A configuration without its free keys, in which every text that names a file is the hash of the file's bytes."""
    if isinstance(value, dict):
        names = {key: f"{name}.{key}" if name else key for key in value}
        return {key: hashed_content(item, free, names[key]) for key, item in value.items() if names[key] not in free}
    if isinstance(value, list):
        return [hashed_content(item, free, name) for item in value]
    if isinstance(value, str) and value and Path(value).is_file():
        return f"sha256:{file_hash(value)}"
    return value


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex; read again only when its size or time changed."""
    stat = Path(path).stat()
    return _file_hash(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, time: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@lru_cache(maxsize=64)
def data_hash(yaml: str, splits: tuple[str, ...], lr_folder: str | None = None) -> str:
    """SHA-256, in hex, of class names, image names and sizes in bytes, and label bytes; computed once per process.

    Args:
        yaml: data-set YAML.
        splits: those that are read.
        lr_folder: folder of LR images, where they are not made on the fly.

    Raises:
        DataSetError: no such YAML or split.
    """
    spec = load_data_spec(yaml)
    digest = hashlib.sha256(json.dumps(spec.names).encode())
    for split in splits:
        for image in spec.images(split):
            label = label_path(image)
            labels = file_hash(label) if label.is_file() else None
            size = image.stat().st_size if image.is_file() else None
            _feed(digest, (split, image.parent.name, image.name, size, labels))
    if lr_folder is not None:
        folder = Path(lr_folder)
        for image in sorted(path for path in folder.rglob("*") if path.is_file()):
            _feed(digest, (image.relative_to(folder).as_posix(), image.stat().st_size))
    return digest.hexdigest()


def _feed(digest, parts: Iterable) -> None:
    digest.update(json.dumps(list(parts)).encode() + b"\n")
