"""What a detector's YAML may ask for, checked before anything is built.

Ultralytics looks a layer's name up in its whole module, where `TorchVision` downloads weights and other names are no
layers of a box detector, and builds as many and as wide ones as the YAML says.
"""

from __future__ import annotations

import re

from utils.errors import UserError

LAYERS = frozenset((
    "A2C2f", "AConv", "ADown", "AIFI", "Bottleneck", "BottleneckCSP", "C1", "C2", "C2f", "C2fCIB", "C2fPSA", "C2PSA",
    "C3", "C3Ghost", "C3k2", "C3TR", "C3x", "CBAM", "CBFuse", "CBLinear", "ChannelAttention", "Concat", "Conv",
    "Conv2", "ConvTranspose", "Detect", "DWConv", "DWConvTranspose2d", "ELAN1", "Focus", "GhostBottleneck",
    "GhostConv", "HGBlock", "HGStem", "LightConv", "PSA", "RepC3", "RepConv", "RepNCSPELAN4", "ResNetLayer", "SCDown",
    "SpatialAttention", "SPP", "SPPELAN", "SPPF", "v10Detect", "nn.AvgPool2d", "nn.BatchNorm2d", "nn.Conv2d",
    "nn.ConvTranspose2d", "nn.Identity", "nn.LeakyReLU", "nn.MaxPool2d", "nn.ReLU", "nn.SiLU", "nn.Upsample",
    "nn.ZeroPad2d",
))  # fmt: skip
MOST_LAYERS, MOST_REPEATS, LARGEST_NUMBER, LARGEST_MULTIPLE = 500, 200, 16_384, 10
NUMBER = re.compile(r"-?\d{1,5}(\.\d{1,6})?")
WORD = re.compile(r"[A-Za-z_]{1,20}")


def check_layers(spec: dict, name: str) -> None:
    """Refuse a model description that goes beyond a box detector.

    Args:
        spec: as `models.detector_yolo.model_yaml` gives it.
        name: for messages.

    Raises:
        UserError: a layer that is not in LAYERS, too many or too wide ones, or rows of another form.
    """
    rows = [row for part in ("backbone", "head") for row in _rows(spec, part, name)]
    if len(rows) > MOST_LAYERS:
        raise UserError(f"{name}: {len(rows)} layers, more than {MOST_LAYERS}; correct the YAML")
    for number, (_, repeats, layer, arguments) in enumerate(rows):
        where = f"{name}: layer {number}"
        if not isinstance(layer, str) or layer not in LAYERS:
            raise UserError(
                f"{where} is {layer!r:.60}, which no detector here is built of: only box detection models (Detect, "
                "v10Detect) work here; take one, or correct the YAML"
            )
        if type(repeats) is not int or not 0 < repeats <= MOST_REPEATS:
            raise UserError(f"{where}, {layer}, is repeated {repeats!r:.60} times; give 1 to {MOST_REPEATS}")
        _check_numbers(arguments, LARGEST_NUMBER, f"{where}, {layer}")
    scales = spec.get("scales") or {}
    multiples = [spec.get("depth_multiple", 1.0), spec.get("width_multiple", 1.0)]
    for size in scales.values() if isinstance(scales, dict) else [scales]:
        if not isinstance(size, list | tuple) or len(size) != 3:
            raise UserError(f"{name}: scales are no lists of [depth, width, most channels]; correct the YAML")
        multiples += size[:2]
    _check_numbers(multiples, LARGEST_MULTIPLE, f"{name}: a multiple of depth or width")
    _check_numbers([spec.get(key) for key in ("reg_max", "max_channels", "nc")], 100_000, name)
    if any(spec.get(key, 3) != 3 for key in ("ch", "channels")):
        raise UserError(f"{name}: takes images of other than 3 channels; correct the YAML")


def _rows(spec: dict, part: str, name: str) -> list[list]:
    rows = spec[part]
    if not isinstance(rows, list) or not all(isinstance(row, list | tuple) and len(row) == 4 for row in rows):
        raise UserError(f"{name}: {part} is no list of [from, repeats, layer, arguments]; correct the YAML")
    return rows


def _check_numbers(value: object, largest: float, where: str, depth: int = 0) -> None:
    """Refuse numbers beyond `largest`, texts that may be such, and nesting."""
    if isinstance(value, list | tuple):
        if depth > 3 or len(value) > 100:
            raise UserError(f"{where}: arguments nested or listed too far; correct the YAML")
        for item in value:
            _check_numbers(item, largest, where, depth + 1)
    elif isinstance(value, str):
        if NUMBER.fullmatch(value):
            _check_numbers(float(value), largest, where)
        elif not WORD.fullmatch(value):
            raise UserError(f"{where}: {value!r:.60} is no number and no word; correct the YAML")
    elif value is not None and not (isinstance(value, int | float) and abs(value) <= largest):
        raise UserError(f"{where}: {value!r:.60}, more than {largest:g} or no number; correct the YAML")
