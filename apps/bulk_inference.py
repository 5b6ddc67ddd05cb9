"""Detect objects in very many files, by several workers, into Parquet tables; started again, it goes on.

    python -m apps.bulk_inference --source images/ --out results/ --workers 2 --weights system.pth
    python -m apps.bulk_inference --source files.parquet --out results/ --workers 8 --detector yolo11n.pt --address auto

results/files has a row for each file with its status, results/boxes one for each box. Exit status: 0 all files read, 1
some could not be read or computed, 2 bad arguments or weights.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="folder, glob, .txt (a path a line) or .parquet (column path)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; an old one is gone on with")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with a model of its own")
    parser.add_argument("--address", help="of a Ray cluster whose machines all see --out and --source")
    parser.add_argument("--gpus", type=float, help="of each worker, 0.5: two share one; default: 1 with CUDA, else 0")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each worker")
    parser.add_argument("--chunk", type=int, default=32, help="files that are finished together")
    model = parser.add_argument_group("the system; see inference.py")
    model.add_argument("--weights", help="checkpoint of stage 3")
    model.add_argument("--detector", help="instead: a deployed detector")
    model.add_argument("--sr", help="SR networks before --detector: shipped, a file, FAST,QUALITY, or bicubic")
    model.add_argument("--scale", type=float)
    model.add_argument("--policy", help="where SR_Quality runs, budget=0.25 for instance")
    model.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    model.add_argument("--half", action="store_true", help="16 bit")
    model.add_argument("--memory-mb", type=int, default=1024, help="about what one image may take")
    model.add_argument("--conf", type=float, default=0.25)
    model.add_argument("--iou", type=float, default=0.7)
    model.add_argument("--max-det", type=int, default=300)
    model.add_argument("--batch", type=int, default=1, help="images per call")
    model.add_argument("--max-pixels", type=int, default=100_000_000, help="larger images are refused")
    options = parser.parse_args(argv)
    for name in ("workers", "threads", "chunk", "batch"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; give 1 or more")
    if options.gpus is not None and not 0 <= options.gpus < math.inf:
        parser.error(f"--gpus is {options.gpus}; give 0 or more, 0.5 for instance")
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    from utils.errors import UserError

    try:
        return run(options)
    except (UserError, OSError) as error:
        print(f"bulk_inference: error: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Exit status. Raises UserError or OSError for what is found before the first file."""
    from apps.bulk.file_list import list_files
    from apps.bulk.finder import System
    from apps.bulk.plan import make_plan, placed
    from apps.bulk.run import Workers, run_plan
    from apps.bulk.tables import FAILED, SKIPPED, finished
    from prediction.run_folder import check_folder
    from utils.device import choose_device
    from utils.extras import require

    require("ray", "bulk", "bulk inference")
    paths, twice = list_files(options.source)
    check_folder(options.out, "--out")
    model = {"weights": options.weights, "detector": options.detector, "sr": options.sr, "scale": options.scale}
    model = {key: value for key, value in model.items() if value is not None}
    model, weights = placed(model)
    model |= {"device": options.device, "half": options.half, "memory_mb": options.memory_mb}
    limits = {name: getattr(options, name) for name in ("policy", "conf", "iou", "max_det", "max_pixels")}
    system = System(model, **limits, batch=options.batch, threads=options.threads)
    system()  # what is wrong with weights or policy is told here, and only once
    gpus = options.gpus if options.gpus is not None else float(choose_device(options.device).type == "cuda")
    plan = make_plan(options.out, paths, model | limits | {"sha256 of weights": weights}, options.chunk)
    before = len(finished(options.out))
    print(f"{sum(map(len, plan.chunks))} files in {len(plan.chunks)} chunks, {before} of them finished before"
          + (f"; {twice} names stand twice" if twice else ""), flush=True)  # fmt: skip
    workers = Workers(options.workers, options.threads, gpus, options.address)
    counts = run_plan(plan, options.out.absolute(), system, workers)
    print(f"{counts['ok']} files read, {counts[SKIPPED]} skipped, {counts[FAILED]} failed, {counts['boxes']} boxes; "
          f"tables in {options.out}")  # fmt: skip
    if counts["missing"]:
        print(f"bulk_inference: error: {counts['missing']} chunks could not be finished (a full disk, or a worker that"
              " died of memory?); start it again to compute them", file=sys.stderr)  # fmt: skip
    return int(any(counts[key] for key in (SKIPPED, FAILED, "missing")))


if __name__ == "__main__":
    sys.exit(main())
