"""The comparison table: every way from an LR image to boxes, detection quality against measured milliseconds.

    python evaluate.py --config configs/evaluate.yaml

Writes results.json, table.md, table.csv, pareto.png and overlays/ into the run folder.

    python evaluate.py sr --weights FILE --hr DIR --scale 4 --out DIR

compares super-resolution networks instead; see `python evaluate.py sr --help`.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from pathlib import Path

from configs.evaluate_schema import EvaluateConfig
from configs.sr_schema import EvaluateSRConfig
from utils.cli import run
from utils.config import config_to_dict, parse_config
from utils.errors import UserError

SR_DESCRIPTION = """Compare super-resolution networks on benchmark folders: quality, parameters, GMAC, milliseconds.

    python evaluate.py sr --weights FILE --hr DIR --scale 4 --out DIR
    python evaluate.py sr --config configs/evaluate_sr.yaml

Writes results.json, table.md, table.csv and comparison/ into the folder `out`, which must be new or empty.
"""


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return compare_sr(argv[1:]) if argv[:1] == ["sr"] else compare_detection(argv)


def compare_detection(argv: list[str]) -> int:
    config = parse_config(EvaluateConfig, __doc__, argv)

    from data.detection import DetectionDataset, canvas_size, load_data_spec, scan_splits
    from deployment.prepare import how_it_runs
    from evaluation.build_rows import build_rows, conditional_systems, with_profiles
    from evaluation.detections_file import DETECTIONS, write_detections
    from evaluation.measure_rows import Evaluation
    from evaluation.report import RESULTS, table_markdown, write_report
    from utils.device import DTYPES, choose_device, set_threads
    from utils.logger import open_run

    # 1. Data and rows; the run folder is opened once all input is known to be good
    check(config)
    device, data = choose_device(config.run.device), config.data
    set_threads(config.run.threads)
    spec = load_data_spec(data.yaml)
    rows = build_rows(config, spec.names)
    if config.profile:
        rows = with_profiles(rows, config, device, DTYPES[config.run.precision])
    systems = conditional_systems(rows)
    if config.halo is not None and not systems:
        print(f"halo: no row has a masker, so {config.halo} changes nothing")
    canvas = canvas_size(data.imgsz, data.scale, math.lcm(*{row.detector.stride for row in rows}))
    records = scan_splits(spec, data, [config.split])[config.split]
    dataset = DetectionDataset(
        records[: config.limit or None],
        spec.names,
        canvas,
        data.scale,
        lr=data.lr,
        lr_folder=data.lr_folder,
        max_pixels=data.max_pixels,
    )
    evaluation = Evaluation(rows, dataset, config, device)
    folder = open_run(config)
    if (folder / RESULTS).exists():
        print(table_markdown(json.loads((folder / RESULTS).read_text(encoding="utf-8"))["rows"]))
        print(f"evaluate: already finished, {folder / RESULTS}")
        return 0

    for name in systems:
        print(f"{name.removesuffix('_learned')}: {how_it_runs(evaluation.prepared[name].system)}")

    # 2. Quality, then time on a machine that has nothing else to do
    quality = evaluation.quality()
    costs = evaluation.cost()

    # 3. Report
    for name in systems:
        own = "" if name == "conditional_learned" else name.removesuffix("_learned")
        evaluation.save_overlays(folder / "overlays" / own, name)
    if config.save_detections:
        write_detections(folder / DETECTIONS, dataset, quality)
    results = describe(config, argv, len(dataset), canvas, device)
    table = write_report(folder, results | {"rows": evaluation.table(quality, costs)})
    print(table)
    print(f"evaluate: {folder / RESULTS}, with table.md and table.csv beside it")
    print(f"pictures: {folder / 'pareto.png'}, {folder / 'overlays'}")
    return 0


def compare_sr(argv: list[str]) -> int:
    config = parse_config(EvaluateSRConfig, SR_DESCRIPTION, argv)

    from evaluation.sr_comparison import Comparison, list_benchmarks, load_candidates
    from evaluation.sr_report import describe_sr, empty_folder, save_comparisons, write_sr_report
    from loading.load_lpips import load_lpips
    from utils.device import choose_device, set_threads

    # 1. Networks and folders; the result's folder is made once all input is known to be good
    device = choose_device(config.device)
    set_threads(config.threads)
    benchmarks = list_benchmarks(config)
    lpips = load_lpips(config.lpips).to(device) if config.lpips else None
    comparison = Comparison(load_candidates(config, device), config, device, lpips)
    folder = empty_folder(config)

    # 2. Figures and pictures
    rows = [row for benchmark in benchmarks for row in comparison.rows(benchmark)]
    for benchmark in benchmarks:
        save_comparisons(comparison, benchmark, folder / "comparison", config.pictures)

    # 3. Report
    print(write_sr_report(folder, describe_sr(config, argv, device) | {"rows": rows}))
    print(f"evaluate sr: {folder / 'results.json'}, with table.md, table.csv and comparison/ beside it")
    return 0


def check(config: EvaluateConfig) -> None:
    """Raises FileNotFoundError where the data set is not there, ValueError where the latency profile is missing."""
    if not Path(config.data.yaml).is_file():
        raise FileNotFoundError(f"data.yaml: {config.data.yaml!r} does not exist; give the data set's YAML file")
    if config.latencies and not config.profile:
        raise UserError("latencies need a latency profile; name one that `python -m tools.latency` made in `profile`")


def describe(config: EvaluateConfig, argv: list[str], images: int, canvas: tuple[int, int], device) -> dict:
    """Everything of results.json besides its rows."""
    import torch

    from data.degradation import LR_PROTOCOLS
    from evaluation.measure_rows import SHOWN_CONF, TIMED_IMAGES, WARMUP
    from evaluation.report import data_set_name
    from utils.logger import cpu_name, environment

    machine = environment()
    return {
        "dataset": data_set_name(Path(config.data.yaml)),
        "split": config.split,
        "scale": config.data.scale,
        "lr_protocol": LR_PROTOCOLS[config.data.lr],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "dtype": config.run.precision,
        "threads": torch.get_num_threads(),
        "versions": machine["versions"],
        "images": images,
        "canvas": list(canvas),
        "seed": config.run.seed,
        "date": machine["date"],
        "command": shlex.join(["python", "evaluate.py", *argv]),
        "git": machine["git"],
        "timing": {
            "batch": 1,
            "images": min(TIMED_IMAGES, images),
            "rounds": config.timing_runs,
            "warmup": WARMUP,
            "conf": SHOWN_CONF,
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "includes": "LR tensor in memory to boxes after non-maximum suppression, rows interleaved",
        },
        "config": config_to_dict(config),
    }


if __name__ == "__main__":
    run(main)
