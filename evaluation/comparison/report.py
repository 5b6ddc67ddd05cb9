"""The report of a comparison: tables of both families as Markdown, all figures as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from evaluation.comparison.aggregate import (
    QUALITY,
    Figure,
    Repetition,
    read_repetition,
    share_name,
    summarise,
)
from evaluation.comparison.catalogue import FAMILIES, REFERENCES, chosen
from evaluation.comparison.claims import Claim, check_claims, claim_note, claim_table
from evaluation.comparison.evidence import Evidence
from evaluation.comparison.figures import draw_pareto_front
from evaluation.comparison.front import FRONT_TITLE, front_table
from evaluation.comparison.limits import LEAST_GAP
from evaluation.computed_by import computed_by
from evaluation.detection_report import HEADINGS, cell_text, heading, json_value, markdown
from evaluation.row_key import CONTROLS, RowKey, by_key
from utils.atomic_file import replace_file, replace_text

INDEX = "comparison.json"
TITLES = {"frozen": "Frozen detector", "retrained": "Retrained detector"}
MEANINGS = {
    "frozen": "A detector trained on HR images with all labels is deployed and stays as it is; only what stands in "
    "front of it learns, to show the detector what it sees in HR images. Rows `_unlabelled` look at no label; those of "
    "the deployed detector are behind it all the same, and settings were chosen on labelled validation images.",
    "retrained": "The detector may learn. Every row starts from the same detector and sees the same labelled images "
    "for the same number of epochs, the HR row too. Rows `_distilled` also match what it saw in HR images; their "
    "front ends come from a warm-up through the detector as it was, without labels, on all training images.",
}
COLUMNS = (
    *("map50_95", "over_bicubic", "gap_recovered", *QUALITY[1:], "kept_share", "kept_inside", "kept_outside"),
    *("sr_gmacs", "total_gmacs", "params", "sr_ms", "total_ms", "total_ms_p95", "peak_mem_mb"),
)
COMPARISON_HEADINGS = {
    "over_bicubic": "over bicubic",
    "gap_recovered": "gap recovered",
    "kept_inside": "kept in boxes",
    "kept_outside": "kept outside",
}


def read_comparison(folder: str | Path) -> tuple[dict, list[Repetition]]:
    """comparison.json of a run and all its measurements that are finished, their asked-for rows only.

    Raises:
        FileNotFoundError: no comparison was run there.
        ValueError: see `read_repetition`.
    """
    file = Path(folder) / INDEX
    if not file.is_file():
        raise FileNotFoundError(f"{file}: does not exist; give the folder `out` of a comparison that was run")
    index = json.loads(file.read_text(encoding="utf-8"))
    wanted = {row.key for row in chosen(index["config"]["rows"])}
    repetitions = []
    for entry in index["measurements"]:
        found = read_repetition(entry["folder"], entry["seed"], entry["label_share"])
        rows = {key: row for key, row in found.rows.items() if key.base in wanted}
        repetitions.append(replace(found, rows=rows))
    return index, repetitions


def report_content(index: dict, repetitions: list[Repetition]) -> dict:
    """The JSON file: the summary, how it came about, and what is missing; no paths of this machine.

    Raises:
        ValueError: see `summarise`.
    """
    config = {
        k: v for k, v in index["config"].items() if k not in ("out", "cache", "data", "jobs", "threads", "device")
    }
    trainings = [{"name": job["name"], "minutes": round(job["seconds"] / 60, 1)} for job in index["trainings"]]
    content = summarise(repetitions) | {"command": index.get("command", "python compare.py")}
    content |= {"comparison": config, "trainings": trainings}
    content["claims"] = [asdict(claim) for claim in check_claims(Evidence(repetitions))]
    return json_value(content | {"missing": index["missing"]})


def write_comparison(content: dict, markdown_file: Path, json_file: Path) -> str:
    """Write both files, and beside them a picture of each family that was timed; returns the Markdown text."""
    pictures = {}
    for family in FAMILIES:
        rows = [row for row in content["rows"] if row["family"] == family]
        figure = draw_pareto_front(rows, f"{TITLES[family]}: mAP against time")
        if figure is not None:
            pictures[family] = f"{markdown_file.stem}_{family}.png"
            save = partial(figure.savefig, format="png", dpi=110)
            replace_file(markdown_file.with_name(pictures[family]), save)
    text = report_markdown(content, pictures)
    replace_text(markdown_file, text)
    replace_text(json_file, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return text


# ------------------------------------------------------------------------------------------------------------ Markdown


def report_markdown(content: dict, pictures: dict[str, str] | None = None) -> str:
    """The whole page; `pictures` are files beside it by family."""
    parts = [f"# {title_of(content)}", *about(content), heading(content), provenance(content)]
    claims = [Claim.of(record) for record in content["claims"]]
    parts += ["## Claims", claim_note(claims), markdown(claim_table(claims), left=5)] if claims else []
    for family in FAMILIES:
        rows = [row for row in content["rows"] if row["family"] == family]
        if rows:
            parts += [f"## {TITLES[family]}", MEANINGS[family], gap_line(content, family)]
            if family in (pictures or {}):
                parts.append(f"![mAP against time]({pictures[family]})")
            parts.append(main_table(rows))
            parts += with_title(f"### {FRONT_TITLE}", front_table(rows))
            parts += with_title("### Which patches: masks of the same kept share, mAP50-95", control_table(rows))
            parts += with_title("### AP50-95 of every class", class_table(rows))
            sweep = sweep_table(content, family)
            parts += with_title(
                "### Fewer labels, mAP50-95 (gap recovered)", sweep and sweep_note(content, family) + sweep
            )
    computed = computed_by(content["rows"])
    parts += with_title("## What computed the rows", markdown(computed, left=2) if computed else None)
    parts += with_title("## Trainings", training_table(content["trainings"]))
    if content["missing"]:
        parts += ["## Missing", "Not finished, so not counted: " + ", ".join(content["missing"]) + "."]
    return "\n\n".join(parts) + "\n"


def sweep_note(content: dict, family: str) -> str:
    """Which images the rows see where labels are few."""
    config = content["comparison"]
    times = f"up to {config.get('sweep_epochs', 1):g} times as often"
    if family not in config.get("sweep_unlabelled", []):
        return f"Rows see their few labelled images {times}.\n\n" if config.get("sweep_epochs", 1) > 1 else ""
    return (
        "Rows that match HR features keep the images without labels for that, in as many epochs as with all labels; "
        f"others see their few labelled images {times}.\n\n"
    )


def title_of(content: dict) -> str:
    """The comparison's own, or data set and scale."""
    return content["comparison"].get("title") or f"{content['dataset']}, x{content['scale']}"


def about(content: dict) -> list[str]:
    """What the comparison's YAML says of itself."""
    return [content["comparison"]["about"]] if content["comparison"].get("about") else []


def provenance(content: dict) -> str:
    """How to read the figures, and what made them."""
    seeds = f"Seed{'s' * (len(content['seeds']) > 1)} {', '.join(map(str, content['seeds']))}"
    commit = (content.get("git") or {}).get("commit")
    dirty = " with local changes" if (content.get("git") or {}).get("dirty") else ""
    code = f", commit {commit[:12]}{dirty}" if commit else ""
    torch = (content.get("versions") or {}).get("torch")
    return (
        f"{seeds}: mean ± standard deviation (n - 1), a number alone is of one seed or of no spread. Times are "
        f"of the first seed, all rows interleaved in one run. "
        f"{halo_note(content)}PyTorch {torch}, {str(content['date'])[:10]}{code}; `{content['command']}`."
    )


def halo_note(content: dict) -> str:
    halo = content["comparison"]["measure"].get("halo")
    return "" if halo is None else f"SR_Quality sees {halo} LR pixels around its patches (`measure.halo`). "


def gap_line(content: dict, family: str) -> str:
    """How large the gap is that rows recover, and a warning where there is none."""
    found = content["gap"][share_name(content["label_share"])][family]
    high, low = (key.short for key in REFERENCES[family])
    if found is None:
        return f"Gap: unknown, the rows {high} and {low} are not both measured."
    text = f"Gap in mAP50-95 between {high} and {low}: {figure_text('map50_95', found)}."
    if not any(row["gap_recovered"] for row in content["rows"] if row["family"] == family):
        return f"{text} Less than {LEAST_GAP} is no gap: there is nothing to recover."
    return (
        f"{text} Gap recovered = (row - {low}) / ({high} - {low}) of each seed, over the seeds that have a gap of "
        f"{LEAST_GAP} or more."
    )


def main_table(rows: list[dict]) -> str:
    """All rows but the controls; columns that no row has are left out."""
    shown = {key: row for key, row in by_key(rows).items() if not key.is_control}
    columns = [column for column in COLUMNS if any(row[column] for row in shown.values())]
    head = ["row", *(COMPARISON_HEADINGS.get(column) or HEADINGS[column] for column in columns)]
    return markdown([head, *([key.short, *(figure_text(c, row[c]) for c in columns)] for key, row in shown.items())])


def control_table(rows: list[dict]) -> str | None:
    """Masker against random, edge and oracle masks; None without conditional rows."""
    quality = {RowKey.of(row): row["map50_95"] for row in rows}
    budgets = [key for key in quality if key.policy == "budget"]
    if not budgets:
        return None
    table = [["system", "kept", "masker", *CONTROLS]]
    for key in budgets:
        values = [quality[key], *(quality.get(key.under(kind, key.budget)) for kind in CONTROLS)]
        table.append([key.base.short, f"{key.budget:g}", *(figure_text("map50_95", value) for value in values)])
    return markdown(table)


def class_table(rows: list[dict]) -> str | None:
    """Rows against classes."""
    shown = {key: row["ap_per_class"] for key, row in by_key(rows).items() if not key.is_control}
    classes = list(dict.fromkeys(name for figures in shown.values() for name in figures))
    if not classes:
        return None
    lines = [[key.short, *(figure_text("ap", figures.get(c)) for c in classes)] for key, figures in shown.items()]
    return markdown([["row", *classes], *lines])


def sweep_table(content: dict, family: str) -> str | None:
    """Rows against label shares, with the share of the gap recovered; None where only one share was measured."""
    if not content["sweep"]:
        return None
    tables = {share_name(content["label_share"]): content["rows"], **content["sweep"]}
    keys = [key for key in map(RowKey.of, content["rows"]) if key.family == family and not key.is_control]
    by_share = {share: by_key(rows) for share, rows in tables.items()}
    head = ["row", *(f"{float(share):.0%} of the labels" for share in tables)]
    lines = [[key.short, *(sweep_cell(rows.get(key)) for rows in by_share.values())] for key in keys]
    return markdown([head, *lines])


def sweep_cell(row: dict | None) -> str:
    """`0.173 (71%)`: mAP50-95 of a row and the share of the gap that it recovers, where there is one."""
    if row is None:
        return "-"
    recovered = None if RowKey.of(row) in REFERENCES[row["family"]] else row["gap_recovered"]
    share = "" if recovered is None else f" ({recovered['mean']:.0%})"
    return figure_text("map50_95", row["map50_95"]) + share


def training_table(trainings: list[dict]) -> str | None:
    """Minutes of every training."""
    if not trainings:
        return None
    lines = [[training["name"], f"{training['minutes']:.1f}"] for training in trainings]
    return markdown([["training", "minutes"], *lines])


def with_title(title: str, table: str | None) -> list[str]:
    return [title, table] if table else []


def figure_text(column: str, value: Figure | None) -> str:
    """`0.301 ± 0.004`, or one number where there is one seed or no spread; a dash where undefined."""
    if value is None:
        return "-"
    text = cell_text(column, value["mean"])
    return f"{text} ± {cell_text(column, value['std'])}" if value["std"] else text
