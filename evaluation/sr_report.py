"""The result of an SR comparison: results.json, table.md, table.csv, and pictures with enlarged crops side by side."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import cv2
import numpy as np
import torch

from configs.sr_schema import EvaluateSRConfig
from deployment.cuda_graphs import warmup_rounds
from evaluation.detection_report import CSV, RESULTS, TABLE, json_value, markdown, table_csv
from evaluation.sr_benchmarks import Benchmark
from evaluation.sr_candidates import BICUBIC
from evaluation.sr_evaluation import GMAC_OUTPUT, TIMED_IMAGES, WARMUP, SREvaluation, size_of
from utils.atomic_file import replace_file, replace_text
from utils.config import ConfigError, config_to_dict, save_config
from utils.logger import cpu_name, environment
from utils.metrics import PSNR_CEILING, psnr_y
from utils.overlay import panel
from utils.resize import resize
from utils.timing import spread

# Column -> heading and digits; None shows the value as it is.
COLUMNS = {
    "arch": ("network", None),
    "weights": ("weights", None),
    "dataset": ("data set", None),
    "scale": ("scale", None),
    "border": ("border", None),
    "psnr_y": ("PSNR Y", 2),
    "ssim_y": ("SSIM Y", 4),
    "psnr_rgb": ("PSNR RGB", 2),
    "ssim_rgb": ("SSIM RGB", 4),
    "psnr_rgb_whole": ("PSNR RGB, no border", 2),
    "lpips": ("LPIPS", 4),
    "fid": ("FID", 2),
    "fid_images": ("FID images", None),
    "steps": ("steps", None),
    "seed": ("seed", None),
    "rendered_share": ("rendered", 3),
    "params": ("params", None),
    "gmacs": ("GMAC", 2),
    "ms": ("ms", 2),
    "ms_p95": ("p95 ms", 2),
    "peak_mem_mb": ("peak MB", 0),
    "lr": ("LR", None),
}
# Columns that are left out where every row has this value.
SELDOM = {"fid": None, "fid_images": None, "steps": 1, "seed": None, "rendered_share": None}
TEXTS = 3  # leading columns that hold words
CROP_SHARE, LEAST_CROP = 0.18, 24  # of the shorter side of the image; HR pixels
SHOWN_HEIGHT, WIDEST = 320, 1280  # pixels: of a picture without its titles, of the HR image in it
FRAME = (255, 40, 40)


def write_sr_report(folder: Path, results: dict) -> str:
    """Write table.md, table.csv and results.json; returns the table as Markdown.

    Args:
        folder: run folder.
        results: {"device", "dtype", "threads", "rows": [...]} and further keys; rows as `SREvaluation.rows` makes them.
    """
    table = sr_table(results["rows"])
    replace_text(folder / CSV, table_csv(results["rows"], shown_columns(results["rows"])))
    replace_text(folder / TABLE, f"{sr_heading(results)}\n\n{table}\n")
    # Last, because its presence says that the comparison is complete.
    replace_text(folder / RESULTS, json.dumps(json_value(results), indent=1, allow_nan=False) + "\n")
    return table


def empty_folder(config: EvaluateSRConfig) -> Path:
    """The folder of the results, with config.yaml in it.

    Raises:
        ConfigError: it exists and holds something.
    """
    folder = Path(config.out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"out: {folder} exists and is not empty; name a new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / "config.yaml")
    return folder


def sr_results_header(config: EvaluateSRConfig, argv: list[str], device: torch.device) -> dict:
    """Everything of results.json besides its rows."""
    machine = environment()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "dtype": config.precision,
        "threads": torch.get_num_threads(),
        "versions": machine["versions"],
        "date": machine["date"],
        "command": shlex.join(["python", "evaluate.py", "sr", *argv]),
        "git": machine["git"],
        "protocol": {
            "metrics": "8-bit SR against HR inside the border; Y: BT.601 studio range, not rounded; RGB: all channels; "
            f"PSNR of an image: at most {PSNR_CEILING:g} dB; whole, FID: without a border",
            "lr": "bicubic: antialiased (MATLAB's imresize), of HR cropped from the top left; folder: as they are",
            "gmacs_output": list(GMAC_OUTPUT),
            "timing": {
                "batch": 1,
                "images": TIMED_IMAGES,
                "rounds": config.timing_runs,
                "warmup": warmup_rounds(TIMED_IMAGES, device, WARMUP),
            },
        },
        "config": config_to_dict(config),
    }


def sr_heading(results: dict) -> str:
    """What was measured, in one paragraph."""
    return (
        f"Means over the images. {results['device']}, {results['dtype']}, {results['threads']} threads; ms: median at"
        " batch 1 from LR to SR tensor, networks in turn; GMAC: for an output of 1280x720; LR: made by bicubic"
        " interpolation, or read from a folder."
    )


def sr_table(rows: list[dict]) -> str:
    """Markdown table; weights by their file name, with the folders above where several files have one name."""
    columns, names = shown_columns(rows), short_names([row["weights"] for row in rows])
    cells = [[_cell(column, (row | {"weights": names[row["weights"]]})[column]) for column in columns] for row in rows]
    return markdown([[COLUMNS[column][0] for column in columns], *cells], TEXTS)


def shown_columns(rows: list[dict]) -> list[str]:
    """All columns; those of FID, diffusion and CMSR only where a row has something to say there."""
    silent = {key for key in SELDOM if all(row[key] in (None, SELDOM[key]) for row in rows)}
    return [column for column in COLUMNS if column not in silent]


def _cell(column: str, value) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if column == "params":
        return f"{value / 1e6:.2f}M" if value >= 1e6 else f"{value / 1e3:.1f}K"
    digits = COLUMNS[column][1]
    return str(value).replace("|", "\\|") if digits is None else f"{value:.{digits}f}"


# ------------------------------------------------------------------------------------------------------------- pictures


def save_comparisons(evaluation: SREvaluation, benchmark: Benchmark, folder: Path, count: int) -> list[Path]:
    """Pictures of up to `count` images, spread over the benchmark; returns their files."""
    candidates = [c for c in evaluation.candidates[benchmark.scale] if c.weights != BICUBIC]
    kinds, written = [c.arch for c in candidates], []
    if len({BICUBIC, *(c.weights for c in candidates)}) > len({BICUBIC, *kinds}):  # several files of one architecture
        names = short_names([c.weights for c in candidates])
        kinds = [names[c.weights] for c in candidates]
    titles = {c.label: kind if c.cmsr is None else f"{kind} CMSR" for c, kind in zip(candidates, kinds, strict=True)}
    for number in spread(len(benchmark.files), count):
        lr, hr = evaluation.pair(benchmark, number)
        size = size_of(lr, hr, benchmark.scale)
        found = {c.label: evaluation.run(c, lr, size) for c in candidates}
        if hr is None and not found:  # bicubic interpolation alone has nothing beside it
            continue
        picture = comparison_picture(lr, hr, found, titles, benchmark.border)
        path = folder / f"{benchmark.dataset}_x{benchmark.scale:g}_{benchmark.names[number]}.png"
        content = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
        replace_file(path, lambda file, content=content: file.write(content))
        written.append(path)
    return written


def short_names(paths: list[str]) -> dict[str, str]:
    """Path -> as many of its last parts as tell all different ones apart."""
    paths, names = list(dict.fromkeys(paths)), {}
    for depth in range(1, 1 + max((len(Path(path).parts) for path in paths), default=0)):
        names = {path: "/".join(Path(path).parts[-depth:]) for path in paths}
        if len(set(names.values())) == len(paths):
            return names
    return {path: path for path in paths}


def comparison_picture(
    lr: np.ndarray, hr: np.ndarray | None, found: dict[str, np.ndarray], titles: dict[str, str], border: int
) -> np.ndarray:
    """The image with a frame, and what is inside it: bicubic, every network's, HR; titles hold PSNR of the image.

    The frame lies where bicubic interpolation errs most, whatever the networks do there. Without HR, which is then left
    out as are the figures, it lies where the last network departs most from it.

    Args:
        lr: uint8 (h, w, 3).
        hr: uint8 (H, W, 3), or None.
        found: SR images, uint8 (H, W, 3), by label; without HR at least one.
        titles: by label.
        border: left out when comparing.

    Returns:
        uint8 (height, width, 3).
    """
    last = hr if hr is not None else [*found.values()][-1]
    height, width = last.shape[:2]
    bicubic = resize(lr, height, width)
    top, left, side = crop_place(bicubic, last)
    shown = [(BICUBIC, bicubic), *((titles[key], sr) for key, sr in found.items())]
    headings = [name if hr is None else f"{name} {psnr_y(sr, hr, border):.2f} dB" for name, sr in shown]
    shown, headings = (shown, headings) if hr is None else ([*shown, ("HR", hr)], [*headings, "HR"])
    enlarged = max(1, SHOWN_HEIGHT // side)
    crops = [image[top : top + side, left : left + side].repeat(enlarged, 0).repeat(enlarged, 1) for _, image in shown]
    return panel([with_frame(last, top, left, side), *crops], ["", *headings])


def with_frame(image: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """The image at the height of the picture, with a frame around a square of it."""
    height, width = image.shape[:2]
    shrink = min(SHOWN_HEIGHT / height, WIDEST / width)
    size = (max(1, round(shrink * width)), max(1, round(shrink * height)))
    framed = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    corners = [round(shrink * value) for value in (left, top, left + side, top + side)]
    framed = cv2.rectangle(np.ascontiguousarray(framed), corners[:2], corners[2:], FRAME, 2)
    return np.pad(framed, ((0, SHOWN_HEIGHT - size[1]), (0, 0), (0, 0)))  # black below a very wide image


def crop_place(image: np.ndarray, reference: np.ndarray) -> tuple[int, int, int]:
    """(top, left, side) of the square in which two images (H, W, 3) differ most."""
    height, width = reference.shape[:2]
    side = min(height, width, max(LEAST_CROP, round(CROP_SHARE * min(height, width))))
    error = np.abs(image.astype(np.float32) - reference).mean(2)
    sums = np.pad(error, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    windows = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(int(windows.argmax()), windows.shape)
    return int(top), int(left), side
