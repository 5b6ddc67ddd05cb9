"""The environment in which Ultralytics is imported: no network, no unsafe pickle, private settings, no side effects.

Telemetry, font and weight downloads, automatic installation and logging services are on by default in Ultralytics.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import torch
from PIL import Image

FONTS = ("Arial.ttf", "Arial.Unicode.ttf")  # Ultralytics downloads these where its configuration folder lacks them
INTEGRATIONS = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")


@contextmanager
def offline_ultralytics():
    """Environment in which Ultralytics must be imported: no network, safe loading, private settings; afterwards thread
    counts and the functions of Pillow and PyTorch that it replaces are what they were."""
    os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0", ULTRALYTICS_SAFE_LOAD="1")
    os.environ["YOLO_CONFIG_DIR"] = str(_private_folder())
    logged_below = logging.root.manager.disable
    logging.disable(logging.INFO)  # it tells where its settings are
    open_image, save = Image.open, torch.save
    threads, cv2_threads, omp = torch.get_num_threads(), cv2.getNumThreads(), os.environ.get("OMP_NUM_THREADS")
    try:
        yield
    finally:
        logging.disable(logged_below)
        Image.open, torch.save = open_image, save
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
        if omp is None:
            os.environ.pop("OMP_NUM_THREADS", None)


@cache
def _private_folder() -> Path:
    """Settings folder of this project alone, with the fonts that Ultralytics would otherwise download."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conditional_sr_yolo"
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    try:
        return _fill(cache, font)
    except OSError:
        return _fill(Path(tempfile.mkdtemp(prefix="conditional_sr_yolo_")), font)


def _fill(folder: Path, font: Path) -> Path:
    settings = folder / "Ultralytics"
    settings.mkdir(parents=True, exist_ok=True)
    for name in FONTS:
        if not (settings / name).exists():
            part = settings / f"{name}.{os.getpid()}"
            shutil.copyfile(font, part)
            os.replace(part, settings / name)
    return folder
