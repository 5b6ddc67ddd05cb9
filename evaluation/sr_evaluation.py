"""Measures SR networks side by side on benchmark folders: image quality, parameters, GMAC, milliseconds, memory."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from configs.sr_schema import EvaluateSRConfig
from data.images import ImageError
from data.sr_pairs import benchmark_files, read_pair
from evaluation.sr_candidates import Candidate, as_list
from evaluation.sr_eval import border_of, dataset_name
from prediction.sr_inference import SRInference, plain_scale
from utils.convert import to_image, to_tensor
from utils.device import check_precision
from utils.errors import UserError
from utils.flops_counter import OnMeta, count_macs, count_parameters
from utils.metrics import mean_over_images, psnr_rgb, psnr_y, ssim_rgb, ssim_y
from utils.progress import ProgressBar
from utils.timing import in_turn, measure_interleaved, peak_memory_mb, spread

GMAC_OUTPUT = (720, 1280)  # HR pixels of the GMAC column
TIMED_IMAGES, WARMUP = 4, 2
QUALITY = {"psnr_y": psnr_y, "ssim_y": ssim_y, "psnr_rgb": psnr_rgb, "ssim_rgb": ssim_rgb}


@dataclass(frozen=True)
class Benchmark:
    """One folder at one scale."""

    dataset: str
    scale: float
    border: int
    files: list[tuple[Path, Path | None]]

    @property
    def lr_protocol(self) -> str:
        return "bicubic" if self.files[0][1] is None else "folder"

    @property
    def names(self) -> list[str]:
        """One name per image: its path below the folder that all share, without suffix where that is enough."""
        top = os.path.commonpath([hr_file.parent for hr_file, _ in self.files])
        paths = [hr_file.relative_to(top) for hr_file, _ in self.files]
        plain = [path.with_suffix("").as_posix() for path in paths]
        return plain if len(set(plain)) == len(plain) else [path.as_posix() for path in paths]


@dataclass
class Scores:
    """Figures per image of one network on one benchmark."""

    names: list[str] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, values: dict[str, float]) -> None:
        self.names.append(name)
        for key, value in values.items():
            self.values.setdefault(key, []).append(value)

    def per_image(self, key: str) -> dict[str, float]:
        return dict(zip(self.names, self.values[key], strict=True))

    def means(self) -> dict[str, float]:
        return {key: mean_over_images(values) for key, values in self.values.items()}


def list_benchmarks(config: EvaluateSRConfig) -> list[Benchmark]:
    """Every folder at every scale.

    LR images inside a folder (Set5 style) are used where there are some for the scale; else LR is made by bicubic.

    Raises:
        ValueError: no folder, two of one name, or not one LR folder per HR folder.
        ImageError: an empty folder, or an LR image that is missing.
    """
    folders, lr_folders = as_list(config.hr), [] if config.lr is None else as_list(config.lr)
    if not folders or not all(folders):
        raise UserError("no images given; name a folder of HR images with --hr")
    if lr_folders and len(lr_folders) != len(folders):
        raise UserError(f"lr names {len(lr_folders)} folders, but hr {len(folders)}; give one LR folder per HR folder")
    if lr_folders and len(as_list(config.scale)) > 1:
        raise UserError("lr holds the images of one scale; give one scale with it")
    names = [dataset_name(Path(folder)) for folder in folders]
    if len(set(names)) < len(names):
        raise UserError(f"hr: two folders of one name ({', '.join(names)}); rename one, their rows would mix")
    found = []
    for scale in as_list(config.scale):
        border = border_of(scale) if config.border is None else config.border
        for number, (folder, name) in enumerate(zip(map(Path, folders), names, strict=True)):
            lr = lr_folders[number] if lr_folders else None
            inside = folder / "LR_bicubic" / f"X{scale:g}"
            if lr is None and (folder / "HR").is_dir() and not inside.is_dir():
                folder = folder / "HR"
            files = benchmark_files(folder, scale, lr)[: config.limit or None]
            found.append(Benchmark(name, scale, border, files))
    return found


# ------------------------------------------------------------------------------------------------------------ measuring


class SREvaluation:
    """Runs candidates over benchmarks.

    Args:
        candidates: networks on the device by scale.
        config: border, self-ensemble, tiles, precision, timing_runs.
        device: where they are.
        lpips: perceptual distance on the device, or None.

    Raises:
        ValueError: fp16 without CUDA.
    """

    def __init__(
        self, candidates: dict[float, list[Candidate]], config: EvaluateSRConfig, device: torch.device, lpips=None
    ):
        check_precision(config.precision, device)
        self.candidates, self.config, self.device, self.lpips = candidates, config, device, lpips
        self.inference = SRInference(device, config.precision, config.tile, config.tile_halo, config.self_ensemble)

    def pair(self, benchmark: Benchmark, number: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR image of one of the benchmark's files."""
        return read_pair(*benchmark.files[number], benchmark.scale, self.config.max_pixels)

    def run(self, candidate: Candidate, lr: np.ndarray, hr: np.ndarray) -> np.ndarray:
        """SR image, uint8 (H, W, 3), of the size of `hr`."""
        return to_image(self.inference(candidate.network, to_tensor(lr, self.device), hr.shape[:2]))

    def rows(self, benchmark: Benchmark) -> list[dict]:
        """Rows of results.json for one benchmark."""
        candidates = self.candidates[benchmark.scale]
        scores = self.quality(benchmark, candidates)
        costs = self.costs(benchmark, candidates)
        rows = []
        for candidate in candidates:
            row = {"weights": candidate.weights, "arch": candidate.arch, "dataset": benchmark.dataset}
            row |= {"scale": plain_scale(benchmark.scale), "border": benchmark.border}
            row |= dict.fromkeys([*QUALITY, "lpips", "rendered_share"]) | scores[candidate.label].means()
            row |= {"params": count_parameters(candidate.network), "gmacs": gmacs(candidate, benchmark.scale)}
            row |= costs[candidate.label] | {"images": len(benchmark.files), "lr": benchmark.lr_protocol}
            row |= {"self_ensemble": self.config.self_ensemble, "tile": self.config.tile, "cmsr": candidate.cmsr}
            rows.append(row | {"psnr_y_per_image": scores[candidate.label].per_image("psnr_y")})
        return rows

    def quality(self, benchmark: Benchmark, candidates: list[Candidate]) -> dict[str, Scores]:
        """Scores by label. All networks see an image while it is there, so every image is decoded once."""
        scores = {candidate.label: Scores() for candidate in candidates}
        title = f"{benchmark.dataset} x{benchmark.scale:g}"
        with ProgressBar(len(benchmark.files) * len(candidates), title) as bar:
            for number, name in enumerate(benchmark.names):
                lr, hr = self.pair(benchmark, number)
                for candidate in candidates:
                    sr = self.run(candidate, lr, hr)
                    try:
                        scores[candidate.label].add(name, self.image_scores(candidate, lr, sr, hr, benchmark.border))
                    except ValueError as error:
                        file, remedy = benchmark.files[number][0], "lower the border, or leave the image out"
                        raise ImageError(file, str(error), remedy) from error
                    bar.update(candidate.arch)
        return scores

    def image_scores(
        self, candidate: Candidate, lr: np.ndarray, sr: np.ndarray, hr: np.ndarray, border: int
    ) -> dict[str, float]:
        """Figures of one image. Raises ValueError where too little of it is inside the border."""
        values = {key: metric(sr, hr, border) for key, metric in QUALITY.items()}
        if self.lpips is not None:
            values["lpips"] = self.distance(sr, hr, border)
        if candidate.cmsr is not None:
            values["rendered_share"] = candidate.network.rendered_share(to_tensor(lr, self.device), hr.shape[:2])
        return values

    @torch.no_grad()
    def distance(self, sr: np.ndarray, hr: np.ndarray, border: int) -> float:
        """LPIPS inside the border."""
        pair = [x[border : x.shape[0] - border, border : x.shape[1] - border] for x in (sr, hr)]
        return self.lpips(*(to_tensor(x, self.device) for x in pair)).item()

    def costs(self, benchmark: Benchmark, candidates: list[Candidate]) -> dict[str, dict[str, float | None]]:
        """Milliseconds (over the same few images for all) and peak memory by label, LR to SR tensor, batch 1."""
        if not self.config.timing_runs:
            return {candidate.label: {"ms": None, "ms_p95": None, "peak_mem_mb": None} for candidate in candidates}
        chosen = spread(len(benchmark.files), TIMED_IMAGES)
        pairs = [self.pair(benchmark, number) for number in chosen]
        inputs = [(to_tensor(lr, self.device), hr.shape[:2]) for lr, hr in pairs]
        calls = {c.label: in_turn(lambda x, c=c: self.inference(c.network, *x), inputs) for c in candidates}
        runs, title = self.config.timing_runs, f"{benchmark.dataset} x{benchmark.scale:g}, timing"
        with ProgressBar(WARMUP + runs, title) as bar:
            timings = measure_interleaved(calls, runs, WARMUP, self.device, on_round=bar.update)
        largest = max(inputs, key=lambda pair: pair[0].numel())
        return {
            c.label: {
                "ms": timings[c.label].median_ms,
                "ms_p95": timings[c.label].p95_ms,
                "peak_mem_mb": peak_memory_mb(lambda c=c: self.inference(c.network, *largest), self.device),
            }
            for c in candidates
        }


def gmacs(candidate: Candidate, scale: float) -> float | None:
    """10^9 MACs for an output of 1280 x 720 pixels (the nearest that whole LR pixels give), the custom of SR papers.

    None where a network cannot be run on shapes alone, as with CMSR, whose work depends on the image.
    """
    network = candidate.network
    if candidate.cmsr is not None:
        return None
    lr = torch.empty(1, 3, *(math.floor(side / scale + 0.5) for side in GMAC_OUTPUT), device="meta")
    try:
        return count_macs(OnMeta(network), lr, *([GMAC_OUTPUT] if network.capabilities.takes_size else [])) / 1e9
    except NotImplementedError:  # a network of spandrel's with a step that needs values, not shapes
        return None
