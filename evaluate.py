"""The comparison table: every way from an LR image to boxes, detection quality against measured milliseconds.

    python evaluate.py --config configs/evaluate.yaml

Writes results.json, table.md, table.csv, pareto.png, overlays/, and matches.npz for intervals, into the run folder.

    python evaluate.py sr --weights FILE --hr DIR --scale 4 --out DIR

compares super-resolution networks instead; see `python evaluate.py sr --help`.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from configs.evaluate_schema import EvaluateConfig
from configs.sr_schema import EvaluateSRConfig
from utils.cli import run
from utils.config import parse_config
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

    from data.detection import load_data_spec
    from evaluation.build_rows import build_rows, conditional_systems, with_profiles
    from evaluation.detection_report import RESULTS, write_report
    from evaluation.measure_rows import DetectionEvaluation
    from evaluation.results_header import results_header
    from training.run_start import start_run
    from utils.device import DTYPES, choose_device, set_threads

    # 1. Data and rows; the run folder is opened once all input is known to be good
    check_evaluation(config)
    device = choose_device(config.run.device)
    if config.run.deterministic and device.type == "cuda":
        from training.processes import repeat_exactly

        repeat_exactly()
    set_threads(config.run.threads)
    spec = load_data_spec(config.data.yaml)
    rows = build_rows(config, spec.names)
    if config.profile:
        rows = with_profiles(rows, config, device, DTYPES[config.run.precision])
    systems = conditional_systems(rows)
    if config.halo is not None and not systems:
        print(f"halo: no row has a masker, so {config.halo} changes nothing")
    dataset = evaluated_images(config, spec, rows)
    evaluation = DetectionEvaluation(rows, dataset, config, device)
    folder = start_run(config)
    if (folder / RESULTS).exists():
        return show_finished(folder / RESULTS)

    # 2. Quality, then time on a machine that has nothing else to do
    evaluation.say_how_it_runs(systems)
    quality = evaluation.quality()
    costs = evaluation.cost()

    # 3. Report
    save_pictures(config, evaluation, systems, quality, folder)
    header = results_header(config, argv, len(dataset), dataset.canvas, device)
    print(write_report(folder, header | {"rows": evaluation.table(quality, costs)}))
    print(f"evaluate: {folder / RESULTS}, with table.md and table.csv beside it")
    print(f"pictures: {folder / 'pareto.png'}, {folder / 'overlays'}")
    return 0


def evaluated_images(config: EvaluateConfig, spec, rows: list):
    """The split, on a canvas that fits all detectors; says what was left out of it."""
    from data.detection import DetectionDataset, canvas_size, scan_splits

    data = config.data
    canvas = canvas_size(data.imgsz, data.scale, math.lcm(*{row.method.detector.stride for row in rows}))
    records = scan_splits(spec, data, [config.split])[config.split]
    return DetectionDataset(
        records[: config.limit or None],
        spec.names,
        canvas,
        data.scale,
        lr=data.lr,
        lr_folder=data.lr_folder,
        max_pixels=data.max_pixels,
    )


def show_finished(file: Path) -> int:
    """The table of a run that is finished already."""
    from evaluation.detection_report import table_markdown

    print(table_markdown(json.loads(file.read_text(encoding="utf-8"))["rows"]))
    print(f"evaluate: already finished, {file}")
    return 0


def save_pictures(config: EvaluateConfig, evaluation, systems: dict, quality: dict, folder: Path) -> None:
    """Pictures of every system with a masker, all boxes for pictures that are drawn later, matches for intervals."""
    from evaluation.build_rows import OWN_SYSTEM
    from evaluation.detections_file import DETECTIONS, write_detections
    from evaluation.matches_file import MATCHES, write_matches

    for key, row in systems.items():
        own = "" if key == OWN_SYSTEM else key.name
        evaluation.save_overlays(folder / "overlays" / own, row)
    if config.save_detections:
        write_detections(folder / DETECTIONS, evaluation.dataset, quality)
    write_matches(folder / MATCHES, evaluation.dataset.names, quality)


def compare_sr(argv: list[str]) -> int:
    config = parse_config(EvaluateSRConfig, SR_DESCRIPTION, argv)

    from evaluation.sr_benchmarks import list_benchmarks
    from evaluation.sr_candidates import load_candidates
    from evaluation.sr_evaluation import SREvaluation
    from evaluation.sr_report import empty_folder, save_comparisons, sr_results_header, write_sr_report
    from loading.load_inception import load_inception
    from loading.load_lpips import load_lpips
    from utils.device import choose_device, set_threads

    # 1. Networks and folders; the result's folder is made once all input is known to be good
    device = choose_device(config.device)
    set_threads(config.threads)
    benchmarks = list_benchmarks(config)
    lpips = load_lpips(config.lpips).to(device) if config.lpips else None
    inception = load_inception(config.fid).to(device) if config.fid else None
    evaluation = SREvaluation(load_candidates(config, device), config, device, lpips, inception)
    folder = empty_folder(config)

    # 2. Figures and pictures
    rows = [row for benchmark in benchmarks for row in evaluation.rows(benchmark)]
    for benchmark in benchmarks:
        save_comparisons(evaluation, benchmark, folder / "comparison", config.pictures)

    # 3. Report
    print(write_sr_report(folder, sr_results_header(config, argv, device) | {"rows": rows}))
    print(f"evaluate sr: {folder / 'results.json'}, with table.md, table.csv and comparison/ beside it")
    return 0


def check_evaluation(config: EvaluateConfig) -> None:
    """Raises FileNotFoundError where the data set is not there, ValueError where the latency profile is missing."""
    if not Path(config.data.yaml).is_file():
        raise FileNotFoundError(f"data.yaml: {config.data.yaml!r} does not exist; give the data set's YAML file")
    if config.latencies and not config.profile:
        raise UserError("latencies need a latency profile; name one that `python -m tools.latency` made in `profile`")


if __name__ == "__main__":
    run(main)
