"""What a run leaves behind to be understood later: its configuration, its environment, its metrics and pictures."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from utils.atomic_file import replace_text
from utils.config import ConfigError, changed_keys, load_config, save_config

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PACKAGES = ("torchvision", "ultralytics", "numpy", "accelerate", "opencv-python", "pillow", "pycocotools")
_OWN_FILES = ("config.yaml", "environment.json", ".lock")


# ---------------------------------------------------------------------------------------------------------- run folder


def open_run(config: Any, main: bool = True, extends: Mapping[str, int] | None = None) -> Path:
    """Create or re-open the run folder `config.run.out` with config.yaml and environment.json.

    A folder that holds nothing but these two files (a run that stopped before it did anything) is taken over.

    Args:
        config: configuration with a `run` section.
        main: False in the further processes of a distributed run, which write and check nothing.
        extends: keys that may change on resuming although results depend on them (numbers of epochs), each with the
            epochs that a finished result already has, 0 where there is none. A change beyond those is said, and
            config.yaml holds the new value from then on; fewer change nothing.

    Raises:
        ConfigError: the folder holds another run and run.resume is false, or resuming with other settings.
    """
    folder = Path(config.run.out)
    if not main:
        return folder
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run.out: {folder} is a file; give a folder")
    stored = folder / "config.yaml"
    begun = stored.exists() and any(entry.name not in _OWN_FILES for entry in folder.iterdir())
    if begun and not config.run.resume:
        raise ConfigError(
            f"run.out: {folder} holds another run; continue it with --run.resume true or choose another --run.out"
        )
    if begun:
        _resume(load_config(type(config), stored), config, folder, extends or {})
        _note_resume(folder / "environment.json")
        return folder
    replace_text(folder / "environment.json", json.dumps(environment(), indent=1) + "\n")
    save_config(config, stored)
    return folder


def _resume(old: Any, new: Any, folder: Path, extends: Mapping[str, int]) -> None:
    """Refuse other settings than the run began with, but for `extends`; note the new values of those."""
    stored, changed = folder / "config.yaml", changed_keys(old, new)
    refused = [name for name in changed if name not in extends]
    if refused:
        raise ConfigError(
            f"run.resume: {folder} was begun with other settings ({', '.join(refused)}); take those of {stored} or "
            "choose another --run.out"
        )
    kept = old
    for name in changed:
        before, now = (reduce(getattr, name.split("."), config) for config in (old, new))
        if now > extends[name]:
            print(f"run.resume: {name} is {now}, was {before}; from here on the schedule is that of a run with {now}")
            kept = _with_value(kept, name, now)
    if kept is not old:
        save_config(kept, stored)


def _with_value(config: Any, name: str, value: Any) -> Any:
    """The configuration with another value of a dotted key."""
    first, _, rest = name.partition(".")
    return replace(config, **{first: _with_value(getattr(config, first), rest, value) if rest else value})


def _note_resume(path: Path) -> None:
    """Add the present environment under "resumed" to the one that the run began with."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known.setdefault("resumed", []).append(environment())
    replace_text(path, json.dumps(known, indent=1) + "\n")


# --------------------------------------------------------------------------------------------------------- environment


def versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that results depend on; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "torch": torch.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def environment() -> dict[str, Any]:
    """Where a result comes from: date, command, git commit, versions, machine. JSON types only."""
    cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),  # argv has the file of a module
        "git": git_state(Path(__file__).resolve().parents[1]),
        "versions": versions(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in cuda],
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """{"commit": hash, "dirty": tracked files differ from it}; None outside a git checkout or without a commit."""
    commands = (["rev-parse", "--show-toplevel", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    answers = []
    for command in commands:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        answers.append(done.stdout.split("\n"))
    top, commit = answers[0][:2]
    # An unpacked copy inside somebody else's repository has no commit of its own.
    return {"commit": commit, "dirty": bool(answers[1][0])} if Path(top).resolve() == folder else None


def cpu_name() -> str:
    """Model name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# ------------------------------------------------------------------------------------------------------------- metrics


class MetricsLog:
    """Scalars to metrics.jsonl and TensorBoard, pictures to TensorBoard; silent in all processes but the main one.

    Args:
        folder: receives metrics.jsonl and tensorboard/.
        main: False makes every method do nothing.
    """

    def __init__(self, folder: str | Path, main: bool = True):
        self.folder, self.main = Path(folder), main
        self.path = self.folder / "metrics.jsonl"
        self._writer: SummaryWriter | None = None
        self._purge_step: int | None = None

    def resume_from(self, step: int) -> None:
        """Forget what was logged after `step`, because these steps will run again; call it before logging.

        Args:
            step: last optimiser step that counts, 0 forgets everything.
        """
        if not self.main:
            return
        self._purge_step = step + 1
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            replace_text(self.path, "".join(f"{line}\n" for line in lines if _counts(line, step)))

    def scalars(self, values: dict[str, float | None], step: int) -> None:
        """Log numbers of one step; None is left out, an infinite value or NaN becomes null in metrics.jsonl."""
        known = {name: float(value) for name, value in values.items() if value is not None}
        if not self.main or not known:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in known.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")
        writer = self._tensorboard()
        for name, value in known.items():
            writer.add_scalar(name, value, step)

    def images(self, tag: str, image: np.ndarray, step: int) -> None:
        """Log one picture, uint8 (H, W, 3), RGB."""
        if self.main:
            self._tensorboard().add_image(tag, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _tensorboard(self) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # costs a second; --help and evaluation do without

            self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._purge_step, flush_secs=30)
        return self._writer


def _counts(line: str, step: int) -> bool:
    """Whether a line of metrics.jsonl belongs to the steps up to `step`; half-written lines do not."""
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, TypeError, KeyError):
        return False
