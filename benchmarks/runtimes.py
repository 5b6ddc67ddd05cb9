"""What runs a part fastest on this CPU: PyTorch as this project prepares it, OpenVINO, onnxruntime; fp32, bf16, int8.

    python -m benchmarks.runtimes --detectors yolo11n.pt --hr datasets/Set5 --data datasets/lr --detector-data coco

Every SR network and detector is exported as `export.py` does it, and all ways of one part are timed in turn in one run;
of an EDSR the native kernels too, int8 (tools/quantise_sr.py) calibrated on the same images. bf16 where the CPU has it.
What int8 costs stands beside the time: dB of SR on `--hr`, differences of certain boxes on `--detector-data`. Writes
docs/results/runtimes.json and the page from it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = ["edsr_16x64", "edsr_8x32", "edsr_2x16", "espcn_64"]
MACHINE = ("date", "git", "versions", "platform", "cpu", "cpu_cores")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=NETWORKS, help="SR networks: names of shipped ones, or files")
    parser.add_argument("--detectors", nargs="*", default=[], help="detector files")
    parser.add_argument("--hr", type=Path, help="HR images for the dB of SR networks")
    parser.add_argument("--data", type=Path, help="LR images on which SR networks are calibrated")
    parser.add_argument("--detector-data", type=Path, help="images on which detectors are calibrated")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--lr", type=int, nargs=2, default=[128, 160], help="height and width of the timed LR image")
    parser.add_argument("--imgsz", type=int, nargs=2, default=[512, 640], help="height and width before the detector")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "results" / "runtimes.json")
    options = parser.parse_args(argv)
    if options.networks and not (options.hr and options.data):
        parser.error("SR networks need --hr and --data")
    if options.detectors and not options.detector_data:
        parser.error("detectors need --detector-data")

    from utils.atomic_file import replace_text
    from utils.device import set_threads
    from utils.logger import environment

    set_threads(options.threads)
    made = environment() | {"threads": options.threads}
    results = {
        "environment": {key: made[key] for key in (*MACHINE, "threads")},
        "command": shlex.join(["python", "-m", "benchmarks.runtimes", *(sys.argv[1:] if argv is None else argv)]),
        "lr": options.lr, "imgsz": options.imgsz, "scale": options.scale, "rounds": options.rounds, "rows": [],
    }  # fmt: skip
    parts = [(network_rows, name) for name in options.networks]
    parts += [(detector_rows, name) for name in options.detectors]
    for rows, name in parts:
        with tempfile.TemporaryDirectory() as folder:
            results["rows"] += rows(name, Path(folder), options)
        replace_text(options.json, json.dumps(results, indent=1) + "\n")
        replace_text(options.json.with_suffix(".md"), page(results))
    return 0


# --------------------------------------------------------------------------------------------------------------- parts


def network_rows(name: str, folder: Path, options) -> list[dict]:
    """An SR network: milliseconds on an image of `options.lr`, dB on the luma of `options.hr`."""
    import numpy as np
    import torch

    from data.sr_pairs import benchmark_pairs
    from deployment.export.graphs import SRGraph
    from deployment.prepare import prepare_network
    from loading.assembled_system import ready_network
    from utils.convert import to_tensor, to_uint8
    from utils.metrics import psnr_y

    network = ready_network(name, options.scale)
    files = exported(SRGraph(network).eval(), folder, tuple(options.lr), options.data, None)
    prepared = prepare_network(network, torch.device("cpu"), torch.float32)
    ways = {("PyTorch, fused", "fp32"): lambda images: prepared(images).clamp(0, 1)} | {
        way: image_run(run) for way, (run, _) in files.items()
    }
    if has_bf16():
        half = prepare_network(network, torch.device("cpu"), torch.bfloat16)
        ways["PyTorch, fused", "bf16"] = lambda images: half(images).float().clamp(0, 1)
    ways |= native_ways(network, options.data)
    pairs = benchmark_pairs(options.hr, options.scale)

    def quality(run: Callable[[Tensor], Tensor]) -> float:
        made = (to_uint8(run(to_tensor(lr, "cpu"))[0]) for _, lr, _ in pairs)
        return float(np.mean([psnr_y(sr, hr, options.scale) for sr, (_, _, hr) in zip(made, pairs, strict=True)]))

    images = torch.rand(1, 3, *options.lr, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        extra = {way: {"psnr_y": quality(run)} for way, run in ways.items()}
        return timed(Path(name).stem, ways, images, files, extra, options)


def has_bf16() -> bool:
    """Whether this CPU computes in bf16; elsewhere it is emulated, and no way to be fast."""
    from deployment.native.build import cpu_flags

    return "avx512_bf16" in cpu_flags()


def native_ways(network, data: Path) -> dict[tuple[str, str], Callable[[Tensor], Tensor]]:
    """The native kernels with an EDSR, dense, in every type that this CPU and build have; {} for other networks."""
    import torch

    from deployment.export.quantise import calibration_images
    from deployment.native.build import NativeError
    from deployment.native_execution import NativeNetwork
    from models.edsr_int8 import quantised
    from utils.errors import UserError

    ways, images = {}, [torch.from_numpy(image) for image in calibration_images(data, None)]
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("int8", torch.float32)):
        try:
            rounded = quantised(network, images) if precision == "int8" else network
            native = NativeNetwork(rounded, dtype)
            ways["native kernel", precision] = lambda images, run=native: run(images).float().clamp(0, 1)
        except (UserError, NativeError) as error:
            print(f"no native {precision}: {error}", flush=True)
    return ways


def detector_rows(name: str, folder: Path, options) -> list[dict]:
    """A detector with suppression: milliseconds on an image of `options.imgsz`, and what int8 moves."""
    import torch

    from deployment.export.graphs import DetectorGraph
    from deployment.export.quantise import calibration_images, measure_loss
    from deployment.prepare_detector import prepare_detector
    from loading.deployed_detector import load_deployed_detector

    detector = load_deployed_detector(name, None)
    graph = DetectorGraph(detector).eval()
    sides = tuple(options.imgsz)
    files = exported(graph, folder, sides, options.detector_data, sides)
    prepared = prepare_detector(detector, torch.device("cpu"), torch.float32, "torch")

    def with_suppression(run: Callable) -> Callable[[Tensor], list[Tensor]]:
        return lambda images: detector.suppressed(image_run(run)(images), images.shape[2:])

    ways = {("PyTorch, fused", "fp32"): prepared.predict} | {
        way: with_suppression(run) for way, (run, _) in files.items()
    }
    if has_bf16():
        half = prepare_detector(detector, torch.device("cpu"), torch.bfloat16, "torch")
        ways["PyTorch, fused", "bf16"] = half.predict
    images = calibration_images(options.detector_data, sides)
    losses = {way: measure_loss(run, graph, images) for way, (run, _) in files.items()}
    extra = {way: {"box_px": loss.boxes, "score": loss.scores} for way, loss in losses.items()}
    with torch.no_grad():
        return timed(Path(name).stem, ways, torch.from_numpy(images[0]), files, extra, options)


def exported(graph, folder: Path, sides: tuple[int, int], data: Path, canvas: tuple[int, int] | None) -> dict:
    """(runtime, precision) -> the file as a function of an array, and its megabytes; int8, and bf16 where it pays."""
    from functools import partial

    from deployment.export.formats import write_formats
    from deployment.export.parity import runtime
    from deployment.export.quantise import calibration_images, quantise
    from deployment.export.traced import ExportOptions

    facts = {"task": "super-resolution"}
    made = {}
    for precision in ("fp32", "int8"):
        rewrite = partial(quantise, images=calibration_images(data, canvas)) if precision == "int8" else None
        options, formats = ExportOptions(sides), ["onnx", "openvino"]
        files = write_formats(graph, formats, folder, precision, options, facts, rewrite)
        for format_, file in files.items():
            weights = file.with_suffix(".bin") if format_ == "openvino" else file
            name = {"onnx": "onnxruntime", "openvino": "OpenVINO"}[format_]
            made[name, precision] = runtime(format_, file), weights.stat().st_size / 1e6
            if (format_, precision) == ("openvino", "fp32") and has_bf16():
                made[name, "bf16"] = runtime(format_, file, "bf16"), made[name, precision][1]
    return made


def image_run(run: Callable) -> Callable[[Tensor], Tensor]:
    """The first result of a file, as a function of tensors."""
    from torch import from_numpy

    return lambda images: from_numpy(run(images.numpy())[0])


def timed(name: str, ways: dict, images: Tensor, files: dict, extra: dict, options) -> list[dict]:
    """Rows of one part; ratios are medians over the rounds, each to PyTorch's time of the same round."""
    import numpy as np

    from utils.timing import measure_interleaved

    calls = {way: (lambda run=run: run(images)) for way, run in ways.items()}
    taken = {way: np.array(t.samples) for way, t in measure_interleaved(calls, options.rounds).items()}
    first = next(iter(taken.values()))
    rows = []
    for way, times in taken.items():
        row = {"part": name, "runtime": way[0], "precision": way[1], "ms": float(np.median(times))}
        row |= {"ratio": float(np.median(times / first)), "mb": files[way][1] if way in files else None}
        rows.append(row | extra.get(way, {}))
        print(json.dumps(rows[-1]), flush=True)
    return rows


# ---------------------------------------------------------------------------------------------------------------- page


def page(results: dict) -> str:
    """The Markdown page of the results."""
    machine = results["environment"]
    height, width = results["lr"]
    lines = [
        "# Runtimes on a CPU", "",
        f"Written by `{results['command']}`. {machine['cpu']}, {machine['threads']} thread, {machine['date']}, PyTorch "
        f"{machine['versions']['torch']}; {results['rounds']} rounds in turn, medians; ratio: to fused PyTorch in the "
        f"same round. SR networks: LR {width}x{height}, x{results['scale']}, PSNR on luma, LR by bicubic; detectors: "
        f"{results['imgsz'][1]}x{results['imgsz'][0]} with suppression; boxes and scores: mean difference of certain "
        "ones to PyTorch's.", "",
        "| part | runtime | precision | ms | ratio | file MB | PSNR Y | boxes px | scores |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    for row in results["rows"]:
        shown = [row["part"], row["runtime"], row["precision"], f"{row['ms']:.1f}", f"{row['ratio']:.2f}"]
        shown += [cell(row.get(key), digits) for key, digits in (("mb", 2), ("psnr_y", 2), ("box_px", 2), ("score", 3))]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    from utils.cli import run

    run(main)
