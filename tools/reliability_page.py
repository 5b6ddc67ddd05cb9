"""The page of the reliability tests from the figures that they leave.

    python -m tools.reliability_page runs/reliability.jsonl --out docs/results/reliability.md

`make reliability` runs the tests and this. A test that failed or was not run has no row or says so in its numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HEAD = """# Reliability

Figures of `tests/reliability/`, {size}: {date}, up to commit {commit}, {cpu}, {cores} cores, Python {python},
PyTorch {torch}. n is what this run had; `make reliability` runs the full size, hours, and writes this page anew. The
tests run small within `make test` (stages, endurance and network within `make reliability` only).
"""
TAIL = """
Stages 2 and 3 and the training loop must end bit for bit as an unbroken run, metrics included. Stage 1 is Ultralytics'
trainer, which keeps 16-bit averages and no state of its sampler between epochs: it goes on, but not bit for bit.
What has no row here was not run: a row for each stage belongs to the full size, fuzzing by coverage needs atheris
(`requirements-fuzz.txt`). No test exists for resuming on a GPU, and killing several processes of one run. How many
faults in the code the tests would notice: [mutation score](mutation.md).
"""


def page(rows: list[dict], about: dict, size: str) -> str:
    """The page as Markdown.

    Args:
        rows: {"group", "what", "good", "tried", "note"} of each test.
        about: `utils.logger.environment()`.
        size: how much of the full size.
    """
    commit = (about["git"] or {}).get("commit", "unknown")[:7]
    head = HEAD.format(
        size=size, date=about["date"][:10], commit=commit, cpu=about["cpu"], cores=about["cpu_cores"],
        python=about["versions"]["python"], torch=about["versions"]["torch"],
    )  # fmt: skip
    lines = [head]
    for group in dict.fromkeys(row["group"] for row in rows):
        lines += [f"## {group}", "", "| what | good / n | |", "|---|---|---|"]
        lines += [
            f"| {row['what']} | {row['good']} / {row['tried']} | {row['note']} |"
            for row in rows
            if row["group"] == group
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n" + TAIL


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.reliability_page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figures", type=Path, help="lines of JSON that the tests wrote (RELIABILITY_OUT)")
    parser.add_argument("--out", type=Path, required=True, help="the page, a Markdown file")
    parser.add_argument("--size", default="small", help="how much of the full size was run, in words")
    options = parser.parse_args(argv)
    if not options.figures.is_file():
        parser.error(f"{options.figures} does not exist: make reliability writes it")

    from utils.atomic_file import replace_text
    from utils.logger import environment

    rows = [json.loads(line) for line in options.figures.read_text(encoding="utf-8").splitlines()]
    replace_text(options.out, page(rows, environment(), options.size))
    bad = [row["what"] for row in rows if row["good"] != row["tried"]]
    print(f"{options.out}: {len(rows)} rows, {len(bad)} not as they should be{': ' * bool(bad)}{'; '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
