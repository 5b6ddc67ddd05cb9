"""What super-resolution brings a deployed detector on your pictures, and a front end trained for it without labels.

    python adapt.py --detector deployed.pt --images folder/ --scale 4 --out runs/adapt

Takes HR pictures, as the detector was trained on, and makes them small. Measures on held-out pictures how far the
detector's boxes in small pictures agree with those in HR pictures, trains, measures again, and says which to deploy:
deploy.pth, with report.md beside it. --resume continues; `--steps 0` only measures.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from configs.adapt_schema import AdaptConfig
from utils.cli import run
from utils.config import parse_config
from utils.errors import UserError

DEPLOY, BEFORE = "deploy.pth", "before.json"


def main(argv: list[str] | None = None) -> int:
    config = parse_config(AdaptConfig, __doc__, argv)
    check_adapt(config)

    from evaluation.adapt_report import PAGE, REPORT, to_win
    from evaluation.agreement import measure_agreement, trained_rows
    from training.adapt import adapt_accelerator, measuring, read_adaptation, trained_system
    from training.run_start import start_run

    # 1. Detector and pictures; the run folder is opened once all input is known to be good
    began = time.monotonic()
    accelerator = adapt_accelerator(config)
    adaptation = read_adaptation(config)
    rows = adaptation.baselines()
    folder = start_run(config)
    if (folder / REPORT).exists():
        print(f"{(folder / PAGE).read_text(encoding='utf-8')}\nadapt: already finished, {folder / REPORT}")
        return 0

    # 2. What there is to win
    def measure(timing_runs: int):
        options = measuring(config, timing_runs)
        return measure_agreement(rows, adaptation.held, adaptation.labelled, config, options, accelerator.device)

    if config.steps:
        before = before_training(folder / BEFORE, lambda: measure(timing_runs=0))
        print(to_win(before, len(adaptation.held)), flush=True)

        # 3. Training, and all rows again beside the trained ones
        system = trained_system(adaptation, folder, accelerator)
        rows += trained_rows(system, config.target)
    final = measure(config.timing_runs)

    # 4. Result
    save_result(folder, adaptation, rows, final, (time.monotonic() - began) / 60)
    return 0


def check_adapt(config: AdaptConfig) -> None:
    """Raises UserError where something is missing that must be given."""
    if not config.detector:
        raise UserError("detector: no file is given; name the deployed detector with --detector")
    if not config.images and not config.data:
        raise UserError("images: no folder of HR pictures is given; name one with --images, or a data set with --data")
    for role in ("sr_fast", "sr_quality"):
        network = getattr(config, role)
        if config.steps and network.weights is None and network.init is None and network.name != "bicubic":
            raise UserError(f"{role}.weights: a front end is not trained from nothing here; name weights, or `shipped`")


def before_training(path: Path, measure) -> list[dict]:
    """Rows of the first measurement, from the run folder where it was made already; prints them."""
    from evaluation.adapt_report import table
    from utils.atomic_file import replace_text

    if path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))
    else:
        rows = measure().rows
        replace_text(path, json.dumps(rows, indent=1) + "\n")
    print(table(rows))
    return rows


def save_result(folder: Path, adaptation, rows: list, final, minutes: float) -> None:
    """Write the system that is to be deployed, and the report; `final` is the Measurement of all rows."""
    from evaluation.adapt_report import write_report
    from training.adapt import save_system
    from utils.logger import environment

    config, advice = adaptation.config, final.advice
    (chosen,) = (row for row in rows if row.name == advice.deploy)
    save_system(folder / DEPLOY, chosen.method, {"stage": 3, "row": advice.deploy, "detector": config.detector})
    result = {"detector": config.detector, "scale": config.scale, "canvas": list(adaptation.held.canvas)}
    result |= {
        "objects": final.objects,
        "pictures": len(adaptation.held),
        "training_pictures": len(adaptation.train),
        "sure": config.sure,
    }
    result |= {"steps": config.steps, "minutes": minutes, "file": DEPLOY}
    result |= {"deploy": advice.deploy, "best": advice.best, "tied": advice.tied, "rows": final.rows}
    result |= {"judged_by": final.judged_by}
    print(write_report(folder, result | {"environment": environment()}))
    print(f"adapt: {folder / DEPLOY}")


if __name__ == "__main__":
    run(main)
