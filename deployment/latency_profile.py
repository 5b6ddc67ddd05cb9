"""Latency profile of a system on a device: predicts milliseconds for any image size and kept share.

It is measured once, by `python -m tools.latency`.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from models.tiling.tile_plan import Geometry
from utils.atomic_file import replace_text
from utils.device import dtype_name
from utils.errors import UserError


@dataclass(frozen=True)
class Curve:
    """Milliseconds against an amount of work: linear between the measured points and beyond the last one.

    Args:
        work: ascending.
        ms: of equal length; decreasing values, which are noise, are levelled.
    """

    work: list[float]
    ms: list[float]

    def __call__(self, work: float) -> float:
        xs, ys = np.asarray(self.work), np.maximum.accumulate(self.ms)
        if work <= xs[-1] or len(xs) == 1:
            scale = work / xs[-1] if len(xs) == 1 and work > xs[-1] else 1.0
            return float(np.interp(work, xs, ys) * scale)
        # Beyond the end: the slope over the last doubling, steadier than that of the last two points.
        start = min(np.searchsorted(xs, xs[-1] / 2), len(xs) - 2)
        return float(ys[-1] + (work - xs[-1]) * (ys[-1] - ys[start]) / (xs[-1] - xs[start]))


@dataclass(frozen=True)
class LatencyProfile:
    """What one system costs on one device.

    Args:
        environment: device, dtype, threads, versions and date of the measurement.
        system: fingerprint of the architecture, see `architecture_fingerprint`.
        scale, patch, halo: of the system, LR pixels; halo is a number also where the execution is exact.
        none: milliseconds of the front end with no patch kept, against LR pixels of the whole batch.
        full: the same with every patch kept.
        in_place: patches share their halos (native kernel) instead of being computed in windows of their own.
        tiles: milliseconds that kept patches add to `none`, against the number of isolated patches over the batch.
        detector: milliseconds of detector and non-maximum suppression, against SR pixels of the whole batch.
    """

    environment: dict
    system: str
    scale: int
    patch: int
    halo: int
    in_place: bool
    none: Curve
    full: Curve
    tiles: Curve
    detector: Curve

    def sr_ms(self, height: int, width: int, batch: int, kept: int) -> float:
        """Milliseconds of the front end for a batch of LR images (height x width) with `kept` patches in each."""
        geometry, pixels = Geometry(height, width, self.patch, self.halo), batch * height * width
        patches = geometry.grid[0] * geometry.grid[1]
        if not 0 <= kept <= patches:
            raise UserError(f"kept is {kept}, but {height}x{width} has {patches} patches")
        if kept == 0:
            return self.none(pixels)
        if kept == patches:
            return self.full(pixels)
        if self.in_place:
            isolated = patches * shared_area(kept / patches, self.patch, self.halo) / (self.patch + 2 * self.halo) ** 2
            return self.none(pixels) + min(self.tiles(batch * isolated), self.full(pixels))
        dense = kept * geometry.area(1, 1) >= height * width
        return self.none(pixels) + (self.full(pixels) if dense else self.tiles(batch * kept))

    def total_ms(self, height: int, width: int, batch: int, kept: int) -> float:
        """The same with the detector."""
        return self.sr_ms(height, width, batch, kept) + self.detector(batch * height * width * self.scale**2)

    def largest_share(self, milliseconds: float, height: int, width: int, batch: int = 1) -> float:
        """Largest kept share in [0, 1] with which an LR image takes at most this long, detector included.

        0 where even no patch at all takes longer. Patches are taken to lie anywhere, so masks with clusters, whose
        patches share more of their halos, take a little less than allowed.
        """
        rows, columns = Geometry(height, width, self.patch, self.halo).grid
        patches = rows * columns
        if self.total_ms(height, width, batch, patches) <= milliseconds * batch:  # without SR_Fast, so not the dearest
            return 1.0
        low, high = 0, patches  # `low` fits, or is none at all; `high` does not
        while high - low > 1:
            kept = (low + high) // 2
            if self.total_ms(height, width, batch, kept) <= milliseconds * batch:
                low = kept
            else:
                high = kept
        if low == 0 and (least := self.total_ms(height, width, batch, 0) / batch) > milliseconds:
            warnings.warn(
                f"an LR image of {width}x{height} takes {least:.1f} ms without any patch of SR_Quality, more than the "
                f"{milliseconds:g} ms allowed",
                stacklevel=2,
            )
        return low / patches

    def sr_share(self, height: int, width: int) -> float:
        """Front-end milliseconds with no patch kept, as a share of those with every patch kept, at batch 1."""
        return min(0.99, self.none(height * width) / self.full(height * width))


def with_profile(system, path: str | Path, device, dtype):
    """The system, its weights shared, with the profile that its policy latency_ms needs.

    Args:
        system: ConditionalSRDetector with a conditional front end.
        path: file of `save_profile`.
        device, dtype: on and in which the system will run.

    Raises:
        ValueError: no profile, or it was measured for something else.
    """
    import torch

    from utils.logger import cpu_name

    profile = load_profile(path)
    known = {"architecture": profile.system, "patch": profile.patch, "scale": profile.scale} | profile.environment
    now = {
        "architecture": architecture_fingerprint(system),
        "patch": system.patch,
        "scale": system.scale,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "dtype": dtype_name(dtype),
    }
    if device.type == "cpu":
        now["threads"] = torch.get_num_threads()
    for what, value in now.items():
        if value != known[what]:
            raise UserError(
                f"{path}: was measured for another {what}: {known[what]}, now {value}; measure again with "
                "`python -m tools.latency`"
            )
    return system.with_execution(latency=profile)


def shared_area(share: float, patch: int, halo: int) -> float:
    """Expected LR pixels per patch that lie within `halo` of a kept one, where each is kept with chance `share`."""
    halo = min(halo, patch // 2)  # beyond, halos reach over whole patches; then hardly anything is left to share
    sides = 4 * halo * (patch - 2 * halo) * share  # of a patch that is not kept, next to one neighbour
    corners = 4 * halo**2 * (1 - (1 - share) ** 3)  # next to three
    return share * patch**2 + (1 - share) * (sides + corners)


def architecture_fingerprint(system) -> str:
    """Of the architecture of a ConditionalSRDetector; weights and class names do not matter for the time."""
    spec = json.loads(json.dumps(system.spec["args"]))
    spec["detector"]["names"] = len(spec["detector"]["names"])
    spec["front"].get("args", {}).get("masker", {}).pop("bias", None)
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def save_profile(profile: LatencyProfile, path: str | Path) -> None:
    """Write as JSON, in one step."""
    replace_text(path, json.dumps(asdict(profile), indent=1) + "\n")


def load_profile(path: str | Path) -> LatencyProfile:
    """Read what `save_profile` wrote.

    Raises:
        ValueError: no such file, or it is no latency profile.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        curves = {name: Curve(**values.pop(name)) for name in ("none", "full", "tiles", "detector")}
        profile = LatencyProfile(**values, **curves)
        _check(profile)
        return profile
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: no latency profile ({error}); measure one with `python -m tools.latency --out {path}`"
        ) from error


def _check(profile: LatencyProfile) -> None:
    """Raises ValueError, TypeError or KeyError where a profile cannot be what was written."""
    for name in ("none", "full", "tiles", "detector"):
        work, ms = (np.array(values, float) for values in (getattr(profile, name).work, getattr(profile, name).ms))
        good = work.ndim == 1 and work.size and work.shape == ms.shape and np.isfinite([work, ms]).all()
        if not good or (np.diff(work) <= 0).any() or (ms < 0).any() or (work < 0).any():
            raise UserError(f"{name} is no curve of finite, ascending figures")
    if not min(profile.full.ms) > 0:
        raise UserError("full is 0 ms")
    whole = {"scale": (1, 64), "patch": (1, 4096), "halo": (0, 100_000)}
    for name, (low, high) in whole.items():
        if type(getattr(profile, name)) is not int or not low <= getattr(profile, name) <= high:
            raise UserError(f"{name} is {getattr(profile, name)!r}")
    for name in ("device", "dtype", "threads"):
        profile.environment[name]
