"""Graphs as files: names, flags and metadata as users of `yolo export` know them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deployment.export.executorch_format import EXTRA as MOBILE
from deployment.export.executorch_format import save_executorch
from deployment.export.traced import EXTRA, INPUT, ExportOptions, example, tracing
from utils.atomic_file import replace_text
from utils.errors import UserError
from utils.extras import require
from utils.yaml_strict import dump_yaml

OPSET, IR_VERSION = 18, 10
# Format -> the libraries that write it, and the requirements file that has them.
FORMATS = {
    "onnx": (("onnx",), EXTRA), "openvino": (("onnx", "openvino"), EXTRA), "torchscript": ((), EXTRA),
    "executorch": (("executorch",), MOBILE), "engine": (("onnx", "tensorrt"), EXTRA),
}  # fmt: skip
WITHOUT_ONNX = ("torchscript", "executorch")


def check_formats(formats: list[str]) -> None:
    """Raises UserError where there is none, one is unknown, or a library for one is missing."""
    if not formats:
        raise UserError(f"include: no format is given; name one or more of {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"include: unknown format {name!r}; use {', '.join(FORMATS)}")
        libraries, extra = FORMATS[name]
        for library in libraries:
            if library == "tensorrt":
                if not torch.cuda.is_available():
                    raise UserError("include engine: TensorRT builds an engine on its CUDA device; there is none here")
                require(library, extra, "include engine (and pip install tensorrt)")
            else:
                require(library, extra, f"include {name}")


def write_formats(
    graph: nn.Module, formats: list[str], folder: Path, name: str, options: ExportOptions, metadata: dict,
    rewrite: Callable[[Path], None] | None = None,
) -> dict[str, Path]:  # fmt: skip
    """One file, or for OpenVINO a folder, per format.

    Args:
        graph: of deployment/export/graphs.py, in evaluation mode.
        formats: keys of FORMATS.
        folder: exists; files of the same names are replaced, each in one step once it is whole.
        name: stem of the files.
        options: sizes and precision.
        metadata: plain values, see `described` of prediction/exported.py.
        rewrite: changes the traced ONNX file before others are made of it.

    Returns:
        Format -> file; NAME.onnx, NAME_openvino_model/NAME.xml, NAME.torchscript, NAME_executorch_model/NAME.pte,
        NAME.engine.

    Raises:
        UserError: the graph cannot be traced.
    """
    graph = graph.requires_grad_(False)
    written = {}
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as scratch:
        traced, new = Path(scratch) / "traced.onnx", Path(scratch) / "new"
        new.mkdir()
        if set(formats) - set(WITHOUT_ONNX):
            trace_onnx(graph, traced, options)
        if rewrite is not None:
            rewrite(traced)
        for format_ in dict.fromkeys(formats):
            if format_ == "onnx":
                file = save_onnx(traced, new / f"{name}.onnx", options, metadata)
            elif format_ == "openvino":
                file = save_openvino(traced, new / f"{name}_openvino_model", options, metadata)
            elif format_ == "executorch":
                file = save_executorch(graph, new / f"{name}_executorch_model", options, metadata)
            elif format_ == "engine":
                file = save_engine(traced, new / f"{name}.engine", options, metadata)
            else:
                file = save_torchscript(graph, new / f"{name}.torchscript", options, metadata)
            written[format_] = folder / file.relative_to(new)
        for file in (path for path in new.rglob("*") if path.is_file()):
            place = folder / file.relative_to(new)
            place.parent.mkdir(exist_ok=True)
            os.replace(file, place)
    return written


def trace_onnx(graph: nn.Module, file: Path, options: ExportOptions) -> None:
    """ONNX by the tracer: it keeps sizes that come from shapes open, and is many times faster than torch.export.

    Raises:
        UserError: see `tracing`.
    """
    axes = {0: "batch", 2: "height", 3: "width"}
    opened = {INPUT: axes} | {name: axes for name in graph.outputs}
    opened["output0"] = axes if graph.outputs == ("output0",) and graph.image_output else {0: "batch", 2: "anchors"}
    opened |= {"mask": {0: "batch", 1: "rows", 2: "columns"}} if "mask" in graph.outputs else {}
    with tracing("ONNX"):
        torch.onnx.export(
            graph, (example(graph, options),), str(file), dynamo=False, opset_version=OPSET, input_names=[INPUT],
            output_names=list(graph.outputs), dynamic_axes=opened if options.dynamic else None,
        )  # fmt: skip


def save_onnx(source: Path, file: Path, options: ExportOptions, metadata: dict) -> Path:
    """ONNX with the metadata as `metadata_props`."""
    onnx = require("onnx", EXTRA)
    model = onnx.load(str(source))
    model.ir_version = min(model.ir_version, IR_VERSION)
    if options.half:
        float16 = require("onnxruntime.transformers.float16", EXTRA, "half with include onnx")
        model = float16.convert_float_to_float16(model, keep_io_types=True)
        require("onnxruntime.transformers.onnx_model", EXTRA).OnnxModel(model).topological_sort()
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, str(value)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))
    return file


def save_openvino(source: Path, folder: Path, options: ExportOptions, metadata: dict) -> Path:
    """OpenVINO's .xml and .bin, with metadata.yaml beside them."""
    openvino = require("openvino", EXTRA)
    model = openvino.convert_model(str(source))
    for key, value in model_info(metadata).items():
        model.set_rt_info(value, ["model_info", key])
    return store_openvino(model, folder, options.half, metadata)


def store_openvino(model: Any, folder: Path, half: bool, metadata: dict) -> Path:
    """An OpenVINO model in its folder, with metadata.yaml."""
    openvino = require("openvino", EXTRA)
    folder.mkdir(exist_ok=True)
    file = folder / f"{folder.name.removesuffix('_openvino_model')}.xml"
    openvino.save_model(model, str(file), compress_to_fp16=half)
    replace_text(folder / "metadata.yaml", dump_yaml(metadata))
    return file


def model_info(metadata: dict) -> dict:
    """What OpenVINO's own tools read of a detector."""
    if metadata["task"] != "detect":
        return {}
    labels = [name.replace(" ", "_") for name in metadata["names"].values()]
    return {"model_type": "YOLO", "reverse_input_channels": True, "pad_value": 114, "scale_values": [255.0],
            "labels": labels, "resize_type": "fit_to_window_letterbox"}  # fmt: skip


def save_torchscript(graph: nn.Module, file: Path, options: ExportOptions, metadata: dict) -> Path:
    """TorchScript, always of 32 bit, with the metadata as the extra file config.txt."""
    metadata = metadata | {"args": metadata["args"] | {"half": False}}
    with tracing("TorchScript"):
        traced = torch.jit.trace(graph, (example(graph, options),), check_trace=False)
        torch.jit.save(traced, str(file), _extra_files={"config.txt": json.dumps(metadata)})
    return file


def save_engine(source: Path, file: Path, options: ExportOptions, metadata: dict) -> Path:
    """TensorRT engine, after its metadata with their length, as Ultralytics reads it.

    Raises:
        UserError: TensorRT refuses the graph.
    """
    trt = require("tensorrt", EXTRA)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network, config = builder.create_network(0), builder.create_builder_config()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        raise UserError(f"export to engine: TensorRT does not take this graph ({parser.get_error(0)})")
    if options.half:
        config.set_flag(trt.BuilderFlag.FP16)
    if options.dynamic:
        profile, (height, width) = builder.create_optimization_profile(), options.imgsz
        least, most = (1, 3, min(32, height), min(32, width)), (max(8, options.batch), 3, 2 * height, 2 * width)
        profile.set_shape(INPUT, least, (options.batch, 3, height, width), most)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError("export to engine: TensorRT could not build it; see its messages above")
    described = json.dumps(metadata).encode()
    file.write_bytes(len(described).to_bytes(4, "little", signed=True) + described + bytes(engine))
    return file
