"""Measures SR networks side by side on benchmark folders: image quality, parameters, GMAC, milliseconds, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from configs.sr_schema import EvaluateSRConfig
from data.image_cache import ImageCache
from data.images import ImageError, read_rgb
from data.sr_pairs import read_pair
from deployment.cuda_graphs import eager, warmup_rounds
from evaluation.fid import frechet_distance, inception_features
from evaluation.sr_benchmarks import Benchmark
from evaluation.sr_candidates import Candidate
from prediction.sr_inference import SRInference, plain_scale
from utils.convert import to_image, to_tensor
from utils.device import check_precision
from utils.flops_counter import OnMeta, count_macs, count_parameters
from utils.metrics import mean_over_images, psnr_rgb, psnr_y, ssim_rgb, ssim_y
from utils.progress import ProgressBar
from utils.timing import in_turn, measure_interleaved, peak_memory_mb, spread

GMAC_OUTPUT = (720, 1280)  # HR pixels of the GMAC column
TIMED_IMAGES, WARMUP = 4, 2
QUALITY = {"psnr_y": psnr_y, "ssim_y": ssim_y, "psnr_rgb": psnr_rgb, "ssim_rgb": ssim_rgb}  # inside the border
WHOLE = {"psnr_rgb_whole": psnr_rgb}  # the other convention: the border counts too
FIGURES = (*QUALITY, *WHOLE, "lpips", "fid", "fid_images", "rendered_share")


@dataclass
class Scores:
    """Figures per image of one network on one benchmark, and what the FID is made of."""

    names: list[str] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    features: list[torch.Tensor] = field(default_factory=list)
    references: list[torch.Tensor] = field(default_factory=list)  # of the HR images, shared by all networks

    def add(self, name: str, values: dict[str, float]) -> None:
        self.names.append(name)
        for key, value in values.items():
            self.values.setdefault(key, []).append(value)

    def per_image(self, key: str) -> dict[str, float]:
        """{name of the image: figure}; empty where there is nothing to compare with."""
        return dict(zip(self.names, self.values[key], strict=True)) if key in self.values else {}

    def means(self) -> dict[str, float]:
        return {key: mean_over_images(values) for key, values in self.values.items()}

    def fid(self) -> dict[str, float]:
        """FID and the number of images that it belongs to; empty where it was not asked for."""
        if not self.features:
            return {}
        return {"fid": frechet_distance(self.features, self.references), "fid_images": len(self.features)}


class SREvaluation:
    """Runs candidates over benchmarks.

    Args:
        candidates: networks on the device by scale.
        config: border, self-ensemble, tiles, precision, timing_runs, cache.
        device: where they are.
        lpips: perceptual distance on the device, or None.
        inception: network of the FID on the device, or None.

    Raises:
        ValueError: fp16 without CUDA.
    """

    def __init__(
        self,
        candidates: dict[float, list[Candidate]],
        config: EvaluateSRConfig,
        device: torch.device,
        lpips=None,
        inception=None,
    ):
        check_precision(config.precision, device)
        self.candidates, self.config, self.device = candidates, config, device
        self.lpips, self.inception = lpips, inception
        self.cache = ImageCache(config.cache, config.cache_folder or Path(config.out) / "cache")
        self.inference = SRInference(device, config.precision, config.tile, config.tile_halo, config.self_ensemble)

    def pair(self, benchmark: Benchmark, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """LR and HR image of one of the benchmark's files; HR is None where there is none."""
        hr_file, lr_file = benchmark.files[number]
        if hr_file is None:
            return self.read(lr_file, self.config.max_pixels), None
        return read_pair(hr_file, lr_file, benchmark.scale, self.config.max_pixels, self.read)

    def read(self, file: Path, max_pixels: int) -> np.ndarray:
        """A decoded image, uint8 (H, W, 3), from the cache where it is kept."""
        return self.cache.get(file, "rgb", lambda: read_rgb(file, max_pixels))

    def run(self, candidate: Candidate, lr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """SR image, uint8 (*size, 3)."""
        return to_image(self.inference(candidate.network, to_tensor(lr, self.device), size))

    def rows(self, benchmark: Benchmark) -> list[dict]:
        """Rows of results.json for one benchmark."""
        candidates = self.candidates[benchmark.scale]
        scores = self.quality(benchmark, candidates)
        costs = self.costs(benchmark, candidates)
        rows = []
        for candidate in candidates:
            row = {"weights": candidate.weights, "arch": candidate.arch, "dataset": benchmark.dataset}
            row |= {"scale": plain_scale(benchmark.scale), "border": benchmark.border}
            row |= dict.fromkeys(FIGURES) | scores[candidate.label].means() | scores[candidate.label].fid()
            row |= {"params": count_parameters(candidate.network), "gmacs": gmacs(candidate, benchmark.scale)}
            row |= costs[candidate.label] | {"images": len(benchmark.files), "lr": benchmark.lr_protocol}
            row |= {"kind": benchmark.kind} | candidate.chain
            row |= {"self_ensemble": self.config.self_ensemble, "tile": self.config.tile, "cmsr": candidate.cmsr}
            rows.append(row | {"psnr_y_per_image": scores[candidate.label].per_image("psnr_y")})
        return rows

    def quality(self, benchmark: Benchmark, candidates: list[Candidate]) -> dict[str, Scores]:
        """Scores by label. All networks see an image while it is there, so every image is decoded once."""
        references: list[torch.Tensor] = []
        scores = {candidate.label: Scores(references=references) for candidate in candidates}
        title = f"{benchmark.dataset} x{benchmark.scale:g}"
        with ProgressBar(len(benchmark.files) * len(candidates), title) as bar:
            for number, name in enumerate(benchmark.names):
                lr, hr = self.pair(benchmark, number)
                judged = self.inception is not None and hr is not None
                if judged:
                    references.append(inception_features(self.inception, hr))
                for candidate in candidates:
                    sr, found = self.run(candidate, lr, size_of(lr, hr, benchmark.scale)), scores[candidate.label]
                    try:
                        found.add(name, self.image_scores(candidate, lr, sr, hr, benchmark.border))
                    except ValueError as error:
                        file, remedy = benchmark.files[number][0], "lower the border, or leave the image out"
                        raise ImageError(file, str(error), remedy) from error
                    if judged:
                        found.features.append(inception_features(self.inception, sr))
                    bar.update(candidate.arch)
        return scores

    def image_scores(
        self, candidate: Candidate, lr: np.ndarray, sr: np.ndarray, hr: np.ndarray | None, border: int
    ) -> dict[str, float]:
        """Figures of one image, without HR only those that need none.

        Raises:
            ValueError: too little of it is inside the border.
        """
        values = {}
        if hr is not None:
            values = {key: metric(sr, hr, border) for key, metric in QUALITY.items()}
            values |= {key: metric(sr, hr, 0) for key, metric in WHOLE.items()}
            if self.lpips is not None:
                values["lpips"] = self.distance(sr, hr, border)
        if candidate.cmsr is not None:
            values["rendered_share"] = candidate.network.rendered_share(to_tensor(lr, self.device), sr.shape[:2])
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
        inputs = [(to_tensor(lr, self.device), size_of(lr, hr, benchmark.scale)) for lr, hr in pairs]
        calls = {c.label: in_turn(lambda x, c=c: self.inference(c.network, *x), inputs) for c in candidates}
        runs, title = self.config.timing_runs, f"{benchmark.dataset} x{benchmark.scale:g}, timing"
        warmup = warmup_rounds(len(inputs), self.device, WARMUP)
        with ProgressBar(warmup + runs, title) as bar:
            timings = measure_interleaved(calls, runs, warmup, self.device, on_round=bar.update)
        largest = max(inputs, key=lambda pair: pair[0].numel())
        return {
            c.label: {
                "ms": timings[c.label].median_ms,
                "ms_p95": timings[c.label].p95_ms,
                "peak_mem_mb": peak_memory_mb(eager(lambda c=c: self.inference(c.network, *largest)), self.device),
            }
            for c in candidates
        }


def size_of(lr: np.ndarray, hr: np.ndarray | None, scale: float) -> tuple[int, int]:
    """(H, W) of the SR image: that of the HR image, else the LR image's times the scale."""
    return hr.shape[:2] if hr is not None else (round(lr.shape[0] * scale), round(lr.shape[1] * scale))


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
