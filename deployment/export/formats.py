"""Graphs as files: names, flags and metadata as users of `yolo export` know them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.atomic_file import replace_text
from utils.errors import UserError
from utils.extras import require
from utils.yaml_strict import dump_yaml

EXTRA = "export"
INPUT = "images"
OPSET, IR_VERSION = 18, 10
# Format -> the libraries that write it.
FORMATS = {
    "onnx": ("onnx",), "openvino": ("onnx", "openvino"), "torchscript": (), "executorch": ("executorch",),
    "engine": ("onnx", "tensorrt"),
}  # fmt: skip
WITHOUT_ONNX = ("torchscript", "executorch")
NO_DATA_SIDES = (19, 23)  # of the example where sizes stay open: no multiples of anything


@dataclass(frozen=True)
class ExportOptions:
    """How to write.

    Args:
        imgsz: height and width of the input; with `dynamic` only what runtimes are told to expect.
        batch: images per call, likewise.
        dynamic: batch, height and width stay open.
        half: weights in 16 bit: ONNX computes in fp16 with fp32 inputs and outputs, OpenVINO stores fp16 and computes
            in what the device does, TensorRT may choose fp16. TorchScript and ExecuTorch stay fp32.
    """

    imgsz: tuple[int, int]
    batch: int = 1
    dynamic: bool = True
    half: bool = False


def check_formats(formats: list[str]) -> None:
    """Raises UserError where there is none, one is unknown, or a library for one is missing."""
    if not formats:
        raise UserError(f"include: no format is given; name one or more of {', '.join(FORMATS)}")
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"include: unknown format {name!r}; use {', '.join(FORMATS)}")
        for library in FORMATS[name]:
            if library == "tensorrt":
                if not torch.cuda.is_available():
                    raise UserError("include engine: TensorRT builds an engine on its CUDA device; there is none here")
                require(library, EXTRA, "include engine (and pip install tensorrt)")
            else:
                require(library, "mobile" if library == "executorch" else EXTRA, f"include {name}")


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
    from deployment.export.executorch_format import save_executorch

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


@contextlib.contextmanager
def tracing(what: str) -> Iterator[None]:
    """Tracers warn about every number that they take as fixed, and print whole graphs where they fail: the check of
    parity at other sizes says what matters.

    Raises:
        UserError: tracing failed, with the first line of the reason.
    """
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"export to {what}: this network cannot be traced ({type(error).__name__}: {reason})"
        ) from error


def example(graph: nn.Module, options: ExportOptions) -> Tensor:
    """What a graph is traced with; where sizes stay open, they tell nothing but of what they must be multiples."""
    multiple = getattr(graph, "multiple", 1)
    open_sides = NO_DATA_SIDES if multiple == 1 else (2 * multiple, 3 * multiple)
    batch, sides = (2, open_sides) if options.dynamic else (options.batch, options.imgsz)
    return torch.rand(batch, 3, *sides, generator=torch.Generator().manual_seed(0))


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
