"""Measures SR networks side by side on benchmark folders: image quality, parameters, GMAC, milliseconds, memory."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from configs.sr_schema import EvaluateSRConfig
from data.images import ImageError
from data.sr_pairs import benchmark_files, read_pair
from evaluation.sr_eval import border_of, dataset_name
from loading.cmsr_tables import REMEDY, TableFile, belongs, foreign, load_tables
from models.arbitrary_scale import BicubicToSize
from prediction.sr_inference import Upscaler, load_sr_for, plain_scale
from utils.convert import to_image, to_tensor
from utils.errors import UserError
from utils.flops_counter import OnMeta, count_macs, count_parameters
from utils.metrics import psnr_rgb, psnr_y, ssim_rgb, ssim_y
from utils.timing import in_turn, measure_interleaved, peak_memory_mb, spread

BICUBIC = "bicubic"
GMAC_OUTPUT = (720, 1280)  # HR pixels of the GMAC column
TIMED_IMAGES, WARMUP = 4, 2
QUALITY = {"psnr_y": psnr_y, "ssim_y": ssim_y, "psnr_rgb": psnr_rgb, "ssim_rgb": ssim_rgb}


@dataclass(frozen=True)
class Candidate:
    """One network, and how it is run.

    Args:
        weights: where its weights are.
        arch: what it is called in tables.
        network: on the device, in evaluation mode.
        cmsr: file of the CMSR tables that it renders by, None renders every pixel.
    """

    weights: str
    arch: str
    network: nn.Module
    cmsr: str | None = None

    @property
    def label(self) -> str:
        """Tells the candidates of a comparison apart."""
        return self.weights if self.cmsr is None else f"{self.weights}, {self.cmsr}"


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
        return {key: float(np.mean(values)) for key, values in self.values.items()}


# ------------------------------------------------------------------------------------------------------ what to compare


def as_list(value) -> list:
    """A single setting or several -> a list."""
    return list(value) if isinstance(value, list) else [value]


def load_candidates(config: EvaluateSRConfig, device: torch.device) -> dict[float, list[Candidate]]:
    """The networks that the settings name, by scale, on the device, in evaluation mode.

    A network of one scale is left out at the others. A network with CMSR tables comes twice at the scales that they
    are for: rendering every pixel, and by the tables.

    Raises:
        ValueError: no weights named, weights that fit none of the scales, or tables that fit none of the weights.
        CheckpointError: see `load_sr`.
        ConfigError: see `load_tables`.
    """
    names, scales = [str(name) for name in as_list(config.weights) if name], as_list(config.scale)
    if not names:
        raise UserError("no weights given; name a checkpoint with --weights, or several as [a.pth, b.pth]")
    if len(set(names)) < len(names):
        raise UserError(f"weights: one file is named twice in {names}")
    files = load_table_files(config)
    candidates: dict[float, list[Candidate]] = {scale: [] for scale in scales}
    used = dict.fromkeys(files, 0)
    for name in names:
        networks = read_networks(name, scales)
        first = next(iter(networks.values()))
        owned = [path for path, file in files.items() if belongs(file, first)]
        if owned and max(scales) <= (beyond := first.capabilities.coarse.beyond):
            raise UserError(f"cmsr: renders beyond x{beyond:g} only; give a larger scale, or leave cmsr out")
        used |= {path: used[path] + 1 for path in owned}
        for scale, network in networks.items():
            network = network.to(device).eval()
            arch = BICUBIC if name == BICUBIC else network.spec["name"]
            candidates[scale].append(Candidate(name, arch, network))
            for path in owned:
                if scale > network.capabilities.coarse.beyond:
                    candidates[scale].append(Candidate(name, arch, network.with_tables(files[path].tables), path))
    for path, count in used.items():
        if count == 0:
            raise UserError(f"cmsr: {path} {foreign(files[path])}, but none of the weights holds it; {REMEDY}")
        if count > 1 and files[path].network is None:
            raise UserError(f"cmsr: {path} does not say which of the networks it belongs to; compare one at a time")
    return candidates


def load_table_files(config: EvaluateSRConfig) -> dict[str, TableFile]:
    """CMSR tables that the settings name, by file.

    Raises:
        ValueError: tables that could not be used with the other settings.
        ConfigError: see `load_tables`.
    """
    paths = [] if config.cmsr is None else [str(path) for path in as_list(config.cmsr)]
    if paths and config.tile:
        raise UserError("cmsr and tile exclude each other: CMSR renders whole images; leave one of them out")
    return {path: load_tables(path) for path in paths}


def read_networks(name: str, scales: list[float]) -> dict[float, nn.Module]:
    """The network of a weight file at those of the scales that it has; a file can hold several.

    Raises:
        ValueError: it has none of them.
        CheckpointError: see `load_sr`.
    """
    if name == BICUBIC:
        return dict.fromkeys(scales, BicubicToSize())
    found, refusals = {}, []
    for scale in scales:
        try:
            found[scale] = load_sr_for(name, scale)
        except ValueError as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    return found


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


class Comparison:
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
        if config.precision == "fp16" and device.type != "cuda":
            raise UserError("precision fp16 needs CUDA; use bf16 or fp32 on a CPU")
        self.candidates, self.config, self.device, self.lpips = candidates, config, device, lpips
        self.upscale = Upscaler(device, config.precision, config.tile, config.tile_halo, config.self_ensemble)

    def pair(self, benchmark: Benchmark, number: int) -> tuple[np.ndarray, np.ndarray]:
        """LR and HR image of one of the benchmark's files."""
        return read_pair(*benchmark.files[number], benchmark.scale, self.config.max_pixels)

    def run(self, candidate: Candidate, lr: np.ndarray, hr: np.ndarray) -> np.ndarray:
        """SR image, uint8 (H, W, 3), of the size of `hr`."""
        return to_image(self.upscale(candidate.network, to_tensor(lr, self.device), hr.shape[:2]))

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
        bar = tqdm(total=len(benchmark.files) * len(candidates), desc=title, unit="image", leave=False, disable=None)
        for number, name in enumerate(benchmark.names):
            lr, hr = self.pair(benchmark, number)
            for candidate in candidates:
                sr = self.run(candidate, lr, hr)
                try:
                    values = {key: metric(sr, hr, benchmark.border) for key, metric in QUALITY.items()}
                    if self.lpips is not None:
                        values["lpips"] = self.distance(sr, hr, benchmark.border)
                    if candidate.cmsr is not None:
                        values["rendered_share"] = candidate.network.rendered_share(
                            to_tensor(lr, self.device), hr.shape[:2]
                        )
                except ValueError as error:
                    raise ImageError(
                        benchmark.files[number][0], str(error), "lower the border, or leave the image out"
                    ) from error
                scores[candidate.label].add(name, values)
                bar.update()
        bar.close()
        return scores

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
        calls = {c.label: in_turn(lambda x, c=c: self.upscale(c.network, *x), inputs) for c in candidates}
        timings = measure_interleaved(calls, self.config.timing_runs, WARMUP, self.device)
        largest = max(inputs, key=lambda pair: pair[0].numel())
        return {
            c.label: {
                "ms": timings[c.label].median_ms,
                "ms_p95": timings[c.label].p95_ms,
                "peak_mem_mb": peak_memory_mb(lambda c=c: self.upscale(c.network, *largest), self.device),
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
