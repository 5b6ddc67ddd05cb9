"""The report as one HTML file that needs no other: tables, curves as SVG, masks, and objects that one row misses."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

import cv2
import numpy as np

from evaluation.comparison.aggregate import Repetition, mean_curve, share_name
from evaluation.comparison.catalogue import FAMILIES, REFERENCES
from evaluation.comparison.failures import (
    Detections,
    case_picture,
    found_ids,
    missed_objects,
    read_detections,
    shown_cases,
)
from evaluation.comparison.figures import draw_pareto_front, draw_precision_recall, draw_sweep, svg
from evaluation.comparison.report import TITLES, report_markdown, title_of
from evaluation.row_key import RowKey, by_key
from utils.atomic_file import replace_text

STYLE = """body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1200px;padding:0 1em;color:#222}
table{border-collapse:collapse;font-size:12px;display:block;overflow-x:auto;margin:1em 0}
td,th{padding:.2em .6em;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}
figure{margin:1em 0}img{max-width:100%}figcaption{font-size:12px;color:#555}"""
GALLERY_WIDTH = 1600  # pixels; larger pictures are shrunk
JPEG_QUALITY = 85


def write_page(file: Path, content: dict, repetitions: list[Repetition], failures: int) -> None:
    """Write the page.

    Args:
        file: to write.
        content: of the JSON report.
        repetitions: the measurements behind it; the timed one has pictures and detections.
        failures: missed objects to show per family.
    """
    body = [tables(report_markdown(content)), *curve_figures(content, repetitions)]
    first = min(repetitions, key=lambda r: (-r.label_share, r.seed))
    body += gallery(first.folder / "overlays")
    body += failure_cases(content, first, failures)
    title = html.escape(title_of(content))
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    replace_text(file, f"{head}\n<body>\n" + "\n".join(body) + "\n</body></html>\n")


# -------------------------------------------------------------------------------------------------------------- tables


def tables(markdown: str) -> str:
    """The Markdown of the report, which has headings, paragraphs and tables only, as HTML."""
    parts = []
    for block in markdown.strip().split("\n\n"):
        lines = block.split("\n")
        if block.startswith("#"):
            level = len(block) - len(block.lstrip("#"))
            parts.append(f"<h{level}>{inline(block.lstrip('# '))}</h{level}>")
        elif block.startswith("|"):
            rows = [cells(line) for line in (lines[0], *lines[2:])]
            head, *body = ("".join(cell(c, "td" if i else "th") for c in row) for i, row in enumerate(rows))
            parts.append("<table>" + "".join(f"<tr>{row}</tr>" for row in (head, *body)) + "</table>")
        else:
            parts.append(f"<p>{inline(block)}</p>")
    return "\n".join(parts)


def cells(line: str) -> list[str]:
    """Cells of a line of a Markdown table."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def cell(text: str, tag: str) -> str:
    return f"<{tag}>{inline(text)}</{tag}>"


def inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))


# -------------------------------------------------------------------------------------------------------------- curves


def curve_figures(content: dict, repetitions: list[Repetition]) -> list[str]:
    """Pareto, precision-recall and label-share pictures of both families."""
    share = content["label_share"]
    parts = []
    for family in FAMILIES:
        rows = [row for row in content["rows"] if row["family"] == family]
        precision = {key: mean_curve(repetitions, share, key) for key in curve_rows(rows)}
        figures = [
            draw_pareto_front(rows, f"{TITLES[family]}: mAP against time"),
            draw_precision_recall({k: c for k, c in precision.items() if c}, f"{TITLES[family]}: precision and recall"),
            draw_sweep({share_name(share): content["rows"], **content["sweep"]}, family, f"{TITLES[family]}: labels"),
        ]
        shown = [f"<figure>{svg(figure)}</figure>" for figure in figures if figure is not None]
        parts += [f"<h2>{TITLES[family]}: curves</h2>", *shown] if shown else []
    return parts


def curve_rows(rows: list[dict]) -> list[RowKey]:
    """Rows of the precision-recall picture: of each conditional system one budget, all others but controls."""
    keys = [key for key in map(RowKey.of, rows) if not key.is_control]
    budgets: dict[RowKey, list[RowKey]] = {}
    for key in keys:
        if key.policy == "budget":
            budgets.setdefault(key.base, []).append(key)
    middle = {sorted(found, key=lambda key: key.budget)[len(found) // 2] for found in budgets.values()}
    return [key for key in keys if key in middle or key.base not in budgets]


# ------------------------------------------------------------------------------------------------------------ pictures


def gallery(folder: Path) -> list[str]:
    """The pictures that evaluate.py drew: LR image, mask, SR image, detections, ground truth, by system."""
    files = sorted(folder.rglob("*.png"))
    parts = ["<h2>Masks</h2>"] if files else []
    for file in files:
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is not None:
            caption = f"{file.parent.relative_to(folder).as_posix()}, {file.stem}".removeprefix("., ")
            parts.append(picture(image[..., ::-1], caption))
    return parts


def picture(image: np.ndarray, caption: str) -> str:
    """An RGB image inside the page."""
    if image.shape[1] > GALLERY_WIDTH:
        height = round(image.shape[0] * GALLERY_WIDTH / image.shape[1])
        image = cv2.resize(np.ascontiguousarray(image), (GALLERY_WIDTH, height), interpolation=cv2.INTER_AREA)
    coded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    data = base64.b64encode(coded.tobytes()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/jpeg;base64,{data}"><figcaption>{text}</figcaption></figure>'


# ------------------------------------------------------------------------------------------------------------ failures


def failure_cases(content: dict, repetition: Repetition, count: int) -> list[str]:
    """Per family: what the best conditional row misses although the bicubic or the HR row finds it."""
    file = repetition.folder / "detections.json"
    if not file.is_file():
        return []
    detections, parts = read_detections(file), []
    stored = {key: row["name"] for key, row in repetition.rows.items() if row["name"] in detections.found}
    for family in FAMILIES:
        examined = examined_row(content["rows"], family)
        others = [key for key in REFERENCES[family][::-1] if key in stored]
        if examined not in stored or not others:
            continue
        shown = {stored[key]: key.short for key in (examined, *others)}  # name in the file -> in the page
        own, *rows = shown
        parts.append(f"<h2>{TITLES[family]}: objects that {html.escape(shown[own])} misses</h2>")
        parts.append(found_table(detections, shown))
        for case in shown_cases(missed_objects(detections, own, rows), count):
            image = case_picture(case, detections, [own, *rows])
            if image is not None:
                finders = ", ".join(shown[name] for name in case.found_by)
                title = f"{Path(case.image['file_name']).name}: found by {finders}; panels: ground truth, "
                parts.append(picture(image, title + ", ".join(shown.values())))
    return parts


def examined_row(rows: list[dict], family: str) -> RowKey | None:
    """The conditional row with a budget that has the highest mAP50-95."""
    own = {key: row["map50_95"] for key, row in by_key(rows).items() if key.family == family and row["map50_95"]}
    budgets = [key for key in own if key.system == "conditional" and key.policy == "budget"]
    return max(budgets, key=lambda key: own[key]["mean"], default=None)


def found_table(detections: Detections, shown: dict[str, str]) -> str:
    """How many objects each row finds, and how many only one of the two.

    Args:
        detections: of all rows.
        shown: name in the file -> in the page; the examined row first.
    """
    (examined, title), *others = shown.items()
    own = found_ids(detections, examined)
    lines = [("row", "objects found", f"missed by {title}", f"found by {title} only")]
    lines.append((title, str(len(own)), "-", "-"))
    for other, name in others:
        theirs = found_ids(detections, other)
        lines.append((name, str(len(theirs)), str(len(theirs - own)), str(len(own - theirs))))
    rows = ("".join(cell(text, "td" if i else "th") for text in line) for i, line in enumerate(lines))
    total = len(detections.annotations)
    text = f"{total} objects; found means a score of at least 0.25, the right class and an IoU of at least 0.5."
    return f"<p>{text}</p><table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
