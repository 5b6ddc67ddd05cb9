"""Entries of torch.hub: the Python API from a folder, without installing anything or writing to `sys.path`.

    import torch

    model = torch.hub.load("path/to/this/folder", "conditional_yolo", source="local", weights="system.pth")
    results = model.predict("images/", policy="budget=0.25")
    sr = torch.hub.load("path/to/this/folder", "sr_network", source="local", scale=4).upscale("image.png")

Load it before Ultralytics is imported, see prediction/api.py.
"""

import sys
from pathlib import Path

dependencies = ["cv2", "numpy", "PIL", "safetensors", "spandrel", "torch", "torchvision", "ultralytics", "yaml"]

ROOT = Path(__file__).resolve().parent
for _name in ("configs", "data", "deployment", "loading", "models", "prediction", "utils"):
    _loaded = [Path(folder).resolve() for folder in getattr(sys.modules.get(_name), "__path__", [])]
    if _name in sys.modules and ROOT / _name not in _loaded:
        raise ImportError(
            f"a package named {_name} of another project is loaded already, so that of {ROOT} cannot be: load this "
            "project first, or in a process of its own"
        )


def conditional_yolo(weights=None, device="auto", half=False, **options):
    """A system that predicts and super-resolves; see `prediction.api.ConditionalYOLO`.

    Args:
        weights: checkpoint of stage 3; None with `detector="yolo11n.pt"`, which needs no training.
        device: auto, cpu or cuda.
        half: compute in 16 bit.
        options: further arguments of ConditionalYOLO.
    """
    from prediction.api import ConditionalYOLO

    return ConditionalYOLO(weights, device, half, **options)


def sr_network(weights="shipped", scale=None, device="auto", half=False, **options):
    """An SR network alone: `upscale(source)` takes images of any kind, `network` is the module.

    Args:
        weights: of stage 2, published by others, or `shipped` for the strongest of the project's own for `scale`.
        scale: factor; None takes the network's own, and x4 of the shipped ones.
        device: auto, cpu or cuda.
        half: compute in 16 bit.
        options: further arguments of `prediction.super_resolver.SuperResolver`.
    """
    from prediction.super_resolver import SuperResolver

    return SuperResolver(weights, scale, device, half, **options)
