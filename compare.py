"""The whole comparison as one command: trains what is missing, measures every row, writes the report.

    python compare.py --config configs/compare/hit_uav_x4.yaml

Runs the stage scripts, several at a time, and keeps every training and measurement under the hash of all that it
depends on, so that the same command goes on where it stopped and repeats nothing. Writes table.md, results.json and
report.html into the folder `out`.

    python compare.py report --run runs/compare/hit_uav_x4 --out docs/results/hit_uav_x4
    python compare.py ablate --config configs/compare/ablations_joint.yaml

write the report once more (OUT.md, OUT.json, OUT_*.png), and study variants of one row on the validation split.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from configs.compare_schema import AblationConfig, CompareConfig
from utils.cli import run
from utils.config import config_to_dict, parse_config

ABLATE_DESCRIPTION = """Train variants of one row of a comparison and compare them on the validation split.

    python compare.py ablate --config configs/compare/ablations_joint.yaml

Writes ablations.md and ablations.json into the folder `out`.
"""


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    commands = {"report": report, "ablate": ablate}
    try:
        return commands[argv[0]](argv[1:]) if argv and argv[0] in commands else compare(argv)
    except KeyboardInterrupt:
        print("stopped, nothing is lost; the same command goes on", file=sys.stderr)
        return 130


def compare(argv: list[str]) -> int:
    config = parse_config(CompareConfig, __doc__, argv)

    from evaluation.comparison.jobs import check_jobs
    from evaluation.comparison.plan import build_plan
    from evaluation.comparison.run import Runner

    # 1. What is needed; nothing starts before every configuration is known to be good
    plan = build_plan(config)
    check_jobs(plan)

    # 2. Train and measure what is missing
    folder, runner = Path(config.out), Runner(plan, config.cache, config.jobs, say)
    try:
        outcome = runner.run()
    finally:
        command = shlex.join(["python", "compare.py", *argv])
        finished = write_index(folder, command, config, plan, runner.outcome.finished)

    # 3. Report, of whatever is finished
    if finished["measurements"]:
        print(write_all(folder, folder / "table.md", folder / "results.json"))
    return said_failures(outcome.failed, outcome.skipped)


def write_index(folder: Path, command: str, config: CompareConfig, plan, finished: dict[str, Path]) -> dict:
    """comparison.json: what was run, where the finished measurements lie, how long trainings took, what is missing."""
    from evaluation.comparison.report import INDEX
    from evaluation.comparison.run import spent_seconds
    from utils.atomic_file import replace_text

    trained = [name for name in finished if plan.jobs[name].stage != "evaluate"]
    index = {
        "command": command,
        "config": config_to_dict(config),
        "measurements": [
            {"seed": m.seed, "label_share": m.label_share, "folder": str(finished[m.job])}
            for m in plan.measurements
            if m.job in finished
        ],
        "trainings": [{"name": name, "seconds": spent_seconds(finished[name].parent)} for name in trained],
        "missing": [name for name in plan.jobs if name not in finished],
    }
    replace_text(folder / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def report(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="compare.py report", description="Write the report of a comparison again.")
    parser.add_argument("--run", required=True, metavar="DIR", help="the folder `out` of the comparison")
    parser.add_argument(
        "--out", metavar="PATH", help="writes PATH.md and PATH.json; default: table.md, results.json in DIR"
    )
    arguments = parser.parse_args(argv)
    folder = Path(arguments.run)
    files = folder / "table.md", folder / "results.json"
    if arguments.out:
        files = Path(f"{arguments.out}.md"), Path(f"{arguments.out}.json")
    write_all(folder, *files)
    print(f"compare report: {files[0]}, {files[1]}, {folder / 'report.html'}")
    return 0


def write_all(folder: Path, markdown_file: Path, json_file: Path) -> str:
    """All three files of the report; returns the Markdown text."""
    from evaluation.comparison.page import write_page
    from evaluation.comparison.report import read_comparison, report_content, write_comparison

    index, repetitions = read_comparison(folder)
    content = report_content(index, repetitions)
    write_page(folder / "report.html", content, repetitions, index["config"]["measure"]["failures"])
    return write_comparison(content, markdown_file, json_file)


def ablate(argv: list[str]) -> int:
    config = parse_config(AblationConfig, ABLATE_DESCRIPTION, argv)

    from evaluation.comparison.ablation import load_comparison, plan_ablations, study_results, write_study
    from evaluation.comparison.jobs import STAGES, check_jobs
    from evaluation.comparison.run import Runner

    comparison = load_comparison(config)
    plan, names = plan_ablations(config, comparison)
    check_jobs(plan)
    outcome = Runner(plan, comparison.cache, comparison.jobs, say).run()
    content = study_results(config, names, outcome, STAGES["stage3"].output)
    print(write_study(Path(config.out), content))
    return said_failures(outcome.failed, outcome.skipped)


def said_failures(failed: dict[str, str], skipped: list[str]) -> int:
    """Status 1 after one line for every failure, 0 where there is none."""
    for message in failed.values():
        print(message.partition("\n")[0], file=sys.stderr)
    if failed:
        print(f"{len(failed)} failed, {len(skipped)} not begun for that; the same command tries again", file=sys.stderr)
    return 1 if failed else 0


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    run(main)
