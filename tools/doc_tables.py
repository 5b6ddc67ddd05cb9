"""Tables of README.md and docs/results.md, written from the published results: no figure there is typed by hand.

    python -m tools.doc_tables            # rewrites what stands between the markers of each table, and the pages below
    python -m tools.doc_tables --check    # exit status 1 where a page disagrees with its results

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; TABLES says of which results it is made. The page of a
comparison, docs/results/NAME.md, is made of NAME.json as a whole.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evaluation.comparison.catalogue import FAMILIES
from evaluation.row_key import RowKey, by_key
from utils.atomic_file import replace_text
from utils.cli import run
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/results.md")
RESULTS = ROOT / "docs" / "results" / "hit_uav_x4_edsr_8x32.json"
MARKED = re.compile(r"<!-- table: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One line of a table: a title, and the rows whose mAP stands under the columns of `HEADINGS`.

    Args:
        title: for the eye.
        unlabelled: before a detector that stays, trained without labels or not at all.
        labelled: before a detector that stays, trained with labels.
        retrained: with a retrained detector.
    """

    title: str
    unlabelled: RowKey | None
    labelled: RowKey | None
    retrained: RowKey | None


HEADINGS = ("detector stays, SR trained without labels", "detector stays, SR trained with labels", "detector retrained")
FROZEN, RETRAINED = "frozen", "retrained"


def same(title: str, system: str, upscale: float = 1) -> Line:
    """A line of something that is not trained, and so the same with labels and without."""
    stays = RowKey(system, FROZEN, upscale=upscale)
    return Line(title, stays, stays, RowKey(system, RETRAINED, upscale=upscale))


def conditional(title: str, policy: str, budget: float | None = None) -> Line:
    keys = (("unlabelled", FROZEN), (None, FROZEN), ("distilled", RETRAINED))
    return Line(title, *(RowKey("conditional", family, recipe).under(policy, budget) for recipe, family in keys))


MAIN = (
    same("HR images", "hr"),
    same("bicubic", "bicubic"),
    same("bicubic at twice the size", "bicubic", 2),
    same("four slices and the whole image", "sliced"),
    Line("SR_Quality everywhere, as pre-trained", RowKey("sr_quality", FROZEN), None, None),
    Line(
        "SR_Fast everywhere, trained",
        RowKey("sr_fast", FROZEN, "tuned_unlabelled"),
        None,
        RowKey("sr_fast", RETRAINED, "distilled"),
    ),
    Line(
        "SR_Quality everywhere, trained",
        RowKey("sr_quality", FROZEN, "tuned_unlabelled"),
        None,
        RowKey("sr_quality", RETRAINED, "distilled"),
    ),
    conditional("conditional, no patch", "all_fast"),
    conditional("**conditional, a tenth of the patches**", "budget", 0.1),
    conditional("**conditional, a quarter**", "budget", 0.25),
    conditional("**conditional, a half**", "budget", 0.5),
    conditional("conditional, all patches", "all_quality"),
)
SHORT = tuple(MAIN[place] for place in (0, 1, 2, 5, 6, 9))
FEWER = {  # of the retrained family, then the frozen one
    "HR images": RowKey("hr", RETRAINED),
    "bicubic": RowKey("bicubic", RETRAINED),
    "bicubic, HR features as targets too": RowKey("bicubic", RETRAINED, "distilled"),
    "bicubic at twice the size": RowKey("bicubic", RETRAINED, upscale=2),
    "**conditional**": RowKey("conditional", RETRAINED, "distilled").under("budget", 0.25),
    "**conditional, detector stays**": RowKey("conditional", FROZEN).under("budget", 0.25),
}


def with_spread(value: dict | None, digits: int) -> str:
    """`0.165 ± 0.002`; one seed, or seeds without a spread, give the number alone."""
    if value is None:
        return ""
    spread = f"{value['std'] or 0:.{digits}f}"
    return f"{value['mean']:.{digits}f}" + (f" ± {spread}" if float(spread) or (value["std"] or 0) > 1e-12 else "")


def markdown_table(head: list[str], body: list[list[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join(f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in row)}|\n" for row in rows)


def front(lines: tuple[Line, ...]) -> str:
    """mAP50-95 of every line in each column, and the milliseconds of its retrained row, else of the others."""
    rows, body = by_key(json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]), []
    for line in lines:
        keys = (line.unlabelled, line.labelled, line.retrained)
        found = [rows[key] if key is not None else None for key in keys]
        timed = next(row for row in reversed(found) if row is not None)
        cells = [with_spread(row and row["map50_95"], 3) for row in found]
        body.append([line.title, *cells, f"{timed['total_ms']['mean']:.1f}"])
    return markdown_table(["", *HEADINGS, "ms"], body)


def fewer_labels() -> str:
    """mAP50-95 with fewer labels of the LR images."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    shares = {1.0: results["rows"]} | {float(share): rows for share, rows in results["sweep"].items()}
    body = []
    for share, rows in shares.items():
        known = by_key(rows)
        body.append([f"{100 * share:g} %", *(with_spread(known[key]["map50_95"], 3) for key in FEWER.values())])
    return markdown_table(["labels", *FEWER], body)


TABLES: dict[str, Callable[[], str]] = {
    "main": lambda: front(MAIN),
    "readme": lambda: front(SHORT),
    "labels": fewer_labels,
}


def written(text: str) -> str:
    """A page with all its tables made anew.

    Raises:
        UserError: a marker names a table that does not exist.
    """

    def replaced(match: re.Match) -> str:
        if match[1] not in TABLES:
            raise UserError(f"there is no table {match[1]!r}; use one of {', '.join(TABLES)}")
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}<!-- end -->"

    return MARKED.sub(replaced, text)


def comparisons() -> list[Path]:
    """The JSON files of published comparisons."""
    files = sorted((ROOT / "docs" / "results").glob("*.json"))
    return [file for file in files if "comparison" in json.loads(file.read_text(encoding="utf-8"))]


def comparison_page(file: Path) -> str:
    """The page of a comparison, with the pictures that lie beside its JSON."""
    from evaluation.comparison.report import report_markdown

    pictures = {family: f"{file.stem}_{family}.png" for family in FAMILIES}
    shown = {family: name for family, name in pictures.items() if file.with_name(name).is_file()}
    return report_markdown(json.loads(file.read_text(encoding="utf-8")), shown)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where a page would change")
    options = parser.parse_args(argv)
    pages = {ROOT / name: written((ROOT / name).read_text(encoding="utf-8")) for name in PAGES}
    pages |= {file.with_suffix(".md"): comparison_page(file) for file in comparisons()}
    stale = []
    for page, text in pages.items():
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            stale.append(page.relative_to(ROOT).as_posix())
            if not options.check:
                replace_text(page, text)
    print(f"{'out of date' if options.check else 'rewritten'}: {', '.join(stale) or 'none'}")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    run(main)
