"""The page of `python -m benchmarks.generative`, made of its results alone."""

from __future__ import annotations

from evaluation.detection_report import markdown
from evaluation.sr_report import COLUMNS

DIGITS = {  # of the columns, by their key in the rows
    "psnr_y": 2,
    "ssim_y": 4,
    "psnr_rgb": 2,
    "ssim_rgb": 4,
    "psnr_rgb_whole": 2,
    "lpips": 4,
    "fid": 2,
    "steps": 0,
    "gmacs": 1,
    "ms": 1,
    "peak_mem_mb": 0,
}
SELDOM = ("lpips", "fid")  # columns that need weight files of their own
PERCENT = 100


def page(results: dict) -> str:
    """Markdown of the results; the same text for the same results."""
    parts = [
        "# Diffusion systems beside regression networks",
        "Written by `python -m benchmarks.generative`; every figure is from [its results](generative.json). "
        f"{machine(results)}; seed {results['seed']}; milliseconds and ratios are medians of {results['rounds']} "
        "rounds in which the networks of one run take turns; rows of other runs were measured at another time. PSNR "
        "and SSIM: 8 bit, border = scale, LR by antialiased bicubic interpolation; GMAC: for an output of 1280x720, "
        "all steps; peak MB: what one call takes on top of weights and image.",
        *quality_parts(results["quality"]),
    ]
    if results["networks"]:
        parts += ["## Networks and their training", networks_table(results), commands(results)]
    if results["memory"]:
        parts += ["## Memory of a large image", MEMORY, memory_table(results["memory"])]
    if results["conditional"]:
        parts += ["## On a tenth of the patches", CONDITIONAL, conditional_table(results["conditional"])]
    return "\n\n".join(parts) + "\n"


MEMORY = (
    "Peak resident memory of a fresh process that super-resolves one image with `memory_mb` as given; before: its peak "
    "when libraries and weights were loaded."
)
CONDITIONAL = (
    "The system as SR_Quality of conditional SR beside bicubic interpolation, its windows fading into each other. `to "
    "dense`: time with these patches divided by that of the system on the whole image in one call, what skipping "
    "saves, halos included. `to all`: divided by that with all patches; about the kept share by construction, as every "
    "patch has a window of its own."
)


def machine(results: dict) -> str:
    made = results["environment"]
    threads = f"{made['threads']} thread" + "s" * (made["threads"] != 1)
    return f"{made['cpu']}, {threads}, fp32, PyTorch {made['versions']['torch']}, {made['date'][:10]}"


def quality_parts(rows: list[dict]) -> list[str]:
    """A heading and a table for every data set and scale, in the order of the rows."""
    parts = []
    for dataset, scale in dict.fromkeys((row["dataset"], row["scale"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["scale"]) == (dataset, scale)]
        columns = [key for key in DIGITS if key not in SELDOM or any(row[key] is not None for row in own)]
        head = ["network", *(COLUMNS[key][0] for key in columns)]
        body = [[row["network"], *(shown(row[key], DIGITS[key]) for key in columns)] for row in own]
        parts += [f"## {dataset} x{scale:g}, {own[0]['images']} held-out images", markdown([head, *body], 1)]
    return parts


def networks_table(results: dict) -> str:
    """Parameters, and what the cards say of the training."""
    params = {row["network"]: row["params"] for row in results["quality"]}
    head = ["network", "kind", "parameters", "data", "protocol", "training"]
    body = [
        [name, found["name"], f"{params[name] / 1e3:,.1f} K" if name in params else "-",
         *(found.get(key, "-") for key in head[3:])]
        for name, found in results["networks"].items()
    ]  # fmt: skip
    return markdown([head, *body], len(head))


def commands(results: dict) -> str:
    """What trains the networks and measures them."""
    trained = [found["command"] for found in results["networks"].values() if found["command"]]
    return "\n".join(["```", *trained, results["command"], "```"])


def memory_table(rows: list[dict]) -> str:
    head = ["network", "output", "memory_mb", "before, MB", "peak, MB", "s"]
    body = [
        [row["network"], "x".join(map(str, row["output"])), str(row["memory_mb"]), shown(row["rest_mb"], 0),
         shown(row["peak_mb"], 0), shown(row["seconds"], 1)]
        for row in rows
    ]  # fmt: skip
    return markdown([head, *body], 1)


def conditional_table(rows: list[dict]) -> str:
    head = ["network", "LR", "patch", "halo", "kept", "ms", "all patches, ms", "dense, ms", "to all", "to dense"]
    body = [
        [row["network"], "x".join(map(str, row["lr"])), str(row["patch"]), str(row["halo"]),
         f"{PERCENT * row['kept']:.0f} %", *(shown(row[f"{key}_ms"], 0) for key in ("tenth", "all", "dense")),
         shown(row["to_all"], 3), shown(row["to_dense"], 3)]
        for row in rows
    ]  # fmt: skip
    return markdown([head, *body], 1)


def shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
