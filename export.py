"""Write SR networks, detectors and whole systems as ONNX, OpenVINO, TorchScript, ExecuTorch or TensorRT files.

    python export.py --weights conditional_sr_yolo_jointly_tuned.pth --include onnx openvino --policy budget=0.25
    python export.py --weights edsr_8x32 --include onnx torchscript --out exported
    python export.py --detector yolo11n.pt --sr espcn_8 --include openvino --out exported

A system becomes one graph: images of any size in, boxes in their pixels out; see docs/export.md. Options may also be
written as for `yolo export`: format=onnx half=True. Exit status: 0 written and equal to PyTorch, 1 a file differs by
more than rounding in fp32 (in 16 bit: gives no numbers; in int8: SR images under 35 dB), 2 bad arguments or weights.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

from configs.export_schema import ExportConfig
from utils.cli import run
from utils.config import parse_config
from utils.errors import UserError

# What `yolo export` has and this has not.
ELSEWHERE = {
    "nms": "boxes come out before non-maximum suppression, see docs/export.md",
    "opset": "ONNX files have opset 18",
    "simplify": "graphs are written as they are",
    "device": "files are written and compared on the CPU, an engine on its CUDA device",
}


def translate(argv: list[str]) -> list[str]:
    """`format=onnx half=True` and `--include onnx openvino`, as users of YOLO write them -> options of this script.

    Raises:
        UserError: an option of `yolo export` that has no counterpart.
    """
    known, result, words = {field.name: str(field.type) for field in fields(ExportConfig)}, [], list(argv)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        key = {"format": "include", "model": "weights"}.get(key, key)
        if key in ELSEWHERE and (equals or word.startswith("--")):
            raise UserError(f"unknown option {key}; {ELSEWHERE[key]}")
        if key not in known or not (equals or word.startswith("--")):
            result.append(f"--{word}" if equals and key.isidentifier() and not word.startswith("--") else word)
        elif key in ("include", "imgsz"):
            values = [value] if equals else []
            while words and not words[0].startswith("--") and "=" not in words[0]:
                values.append(words.pop(0))
            listed = ",".join(values).strip("[]")
            result.append(f"--{key}={listed if key == 'imgsz' and listed.isdigit() else f'[{listed}]'}")
        else:
            result.append(f"--{key}={value}" if equals else f"--{key}")
            if not equals and known[key] != "bool" and words and not words[0].startswith("--"):
                result.append(words.pop(0))  # its value, whatever it looks like
    return result


def main(argv: list[str] | None = None) -> int:
    config = parse_config(ExportConfig, __doc__, translate(sys.argv[1:] if argv is None else argv))

    from deployment.export.executorch_format import check_sizes
    from deployment.export.formats import WITHOUT_ONNX, check_formats, write_formats
    from deployment.export.parity import measure_parity, runtime, shapes_of
    from deployment.export.quantise import calibration_images, check_quantisable, measure_loss, quantise
    from prediction.exported import described, exported_graph, options_of
    from prediction.run_folder import check_folder

    # 1. Everything that can be wrong
    if not (config.weights or config.detector) or (config.weights and config.detector):
        raise UserError("give --weights, or --detector (with --sr); one of them")
    check_formats(config.include)
    folder, name = place_of(config)
    check_folder(folder, "out")
    what = exported_graph(config)
    options = options_of(config, what)
    if "executorch" in config.include:
        check_sizes(what.graph, options)
    images, rewrite = [], None
    if config.int8:
        check_quantisable(what.graph, config.include, options, config.data)
        any_size = what.graph.image_output and options.dynamic
        batch = 1 if options.dynamic else options.batch
        images = calibration_images(config.data, None if any_size else options.imgsz, batch)
        rewrite = partial(quantise, images=images)
    folder.mkdir(parents=True, exist_ok=True)

    # 2. Files, and whether they compute the same
    about = described(config, what, options)
    files = write_formats(what.graph, config.include, folder, name, options, about, rewrite)
    status = 0
    for format_, file in files.items():
        print(f"{format_}: {file}")
        if config.check and config.int8:
            loss = measure_loss(runtime(format_, file), what.graph, images)
            print(f"  {loss}")
            status |= not loss.bearable
        elif config.check and format_ != "engine":
            shapes = shapes_of(options, what.graph.multiple, fixed_batch=format_ == "executorch")
            parity = measure_parity(runtime(format_, file), what.graph, shapes)
            print(f"  {parity}")
            rounded = config.half and format_ not in WITHOUT_ONNX
            status |= not (parity.finite if rounded else parity.close)
    return int(status)


def place_of(config: ExportConfig) -> tuple[Path, str]:
    """Folder and stem of the files. Raises UserError for a name that is none."""
    source = Path(config.weights or config.detector or "")
    if config.name is not None and Path(config.name).name != config.name:
        raise UserError(f"name is {config.name!r}; give the stem of the files alone, and their folder as out")
    beside = source.parent if source.is_file() else Path("runs/export")
    return Path(config.out) if config.out else beside, config.name or source.stem + ("_int8" if config.int8 else "")


if __name__ == "__main__":
    run(main, "stopped; no file was left half written")
