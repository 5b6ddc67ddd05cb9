"""Measures the curves of a latency profile; see latency_profile.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from tqdm import tqdm

from deployment.latency_profile import Curve, LatencyProfile, architecture_fingerprint
from deployment.prepare import prepare_system
from models.front_end import FrontEnd
from models.mask_policy import GivenMask
from models.masker import patch_grid
from models.system import ConditionalSRDetector
from models.tiling.run_patches import geometry_of
from models.tiling.tile_plan import Geometry
from utils.device import dtype_name
from utils.errors import UserError
from utils.logger import environment
from utils.timing import measure_interleaved

CONF = 0.25  # what a user sees; fewer boxes take less time in non-maximum suppression
WARMUP = 2

Calls = dict[tuple[str, int], Callable[[], object]]  # by kind and amount of work


def measure_profile(
    system: ConditionalSRDetector,
    device: torch.device,
    dtype: torch.dtype,
    size: tuple[int, int],
    batch: int,
    rounds: int = 7,
) -> LatencyProfile:
    """Time a system from no patch to all patches, on several sizes and batches, all points interleaved.

    Args:
        system: with a conditional front end; a copy is prepared.
        device, dtype: as it will run.
        size: height and width of an LR image.
        batch: largest batch.
        rounds: timed calls of each point.

    Raises:
        ValueError: the system has no masker, or the detector cannot take images of this size.
    """
    if system.patch is None:
        raise UserError("a latency profile needs a system with a masker; train stage 3 with `sr: conditional`")
    prepared = prepare_system(system.eval(), device, dtype)
    front = prepared.front
    geometry = geometry_of(front.sr_quality, torch.empty(1, 3, *size), front.patch, front.execution.halo)
    generator = torch.Generator().manual_seed(0)
    calls = _whole_calls(prepared, device, size, batch, generator)
    calls |= _tile_calls(front, device, geometry, batch, generator)
    bar = tqdm(total=WARMUP + rounds, desc="latency profile", unit="round", disable=None)
    with torch.inference_mode():
        timings = measure_interleaved(calls, rounds, WARMUP, device, on_round=bar.update)
    bar.close()

    points: dict[str, dict[int, float]] = {}
    for (kind, work), timing in timings.items():
        points.setdefault(kind, {})[work] = timing.median_ms
    curves = {name: curve(points[name]) for name in ("none", "full", "detector")}
    curves["tiles"] = curve(_tile_points(points, size[0] * size[1], batch))
    return LatencyProfile(
        _measured_on(device, dtype, rounds), architecture_fingerprint(system), system.scale, front.patch,
        geometry.halo, front.execution.patches is not None, **curves,
    )  # fmt: skip


def _whole_calls(
    system: ConditionalSRDetector, device: torch.device, size: tuple[int, int], batch: int, generator: torch.Generator
) -> Calls:
    """No patch and all patches by LR pixels, the detector by SR pixels."""
    calls: Calls = {}
    front, stride = system.front, system.detector.stride // math.gcd(system.detector.stride, system.scale)
    if any(side % stride for side in size):  # LR sides are multiples of it
        raise UserError(
            f"LR images of {size[1]}x{size[0]} do not fit the detector: sides must be multiples of {stride}, SR sides "
            f"of {stride * system.scale}"
        )
    for height, width, number in sizes(size, batch, stride):
        lr = torch.rand(number, 3, height, width, generator=generator).to(device)
        grid, pixels = (number, *patch_grid(height, width, front.patch)), number * height * width
        calls["none", pixels] = _infer(front, lr, torch.zeros(grid, dtype=torch.bool))
        calls["full", pixels] = _infer(front, lr, torch.ones(grid, dtype=torch.bool))
        image = calls["none", pixels]().sr  # in the type and layout that the detector gets
        calls["detector", pixels * system.scale**2] = lambda image=image: system.detector.predict(
            system.shown(image), CONF
        )
    return calls


def _tile_calls(
    front: FrontEnd, device: torch.device, geometry: Geometry, batch: int, generator: torch.Generator
) -> Calls:
    """Scattered patches by their number, of one image and of the largest batch."""
    calls: Calls = {}
    for number in sorted({1, batch}):
        lr = torch.rand(number, 3, geometry.height, geometry.width, generator=generator).to(device)
        for kept in tile_counts(geometry, number):
            calls[f"tiles of {number}", kept] = _infer(front, lr, scattered_mask(geometry, number, kept))
    return calls


def _tile_points(points: dict[str, dict[int, float]], pixels: int, batch: int) -> dict[int, float]:
    """What patches add to a run without any, by their number; `pixels` of one LR image."""
    tiles = {0: 0.0}
    for number in sorted({batch, 1}, reverse=True):  # where both know a count, one image is the more careful figure
        none = points["none"][number * pixels]
        tiles |= {kept: max(0.0, ms - none) for kept, ms in points.get(f"tiles of {number}", {}).items()}
    return tiles


def _measured_on(device: torch.device, dtype: torch.dtype, rounds: int) -> dict:
    machine = environment()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else machine["cpu"],
        "dtype": dtype_name(dtype),
        "threads": torch.get_num_threads(),
        "versions": machine["versions"],
        "date": machine["date"],
        "rounds": rounds,
    }


def _infer(front: FrontEnd, lr: torch.Tensor, mask: torch.Tensor):
    policy = GivenMask(mask.to(lr.device))
    return lambda: front.infer(lr, policy)


def curve(points: dict[int, float]) -> Curve:
    """Curve through work -> milliseconds."""
    work = sorted(points)
    return Curve([float(x) for x in work], [round(points[x], 4) for x in work])


def sizes(size: tuple[int, int], batch: int, stride: int) -> list[tuple[int, int, int]]:
    """Height, width and batch of the images to measure: half the size, the size, and batches of it."""
    half = tuple(max(stride, side // 2 // stride * stride) for side in size)
    numbers = sorted({1, 2, -(-batch // 2), batch} if batch > 1 else {1})
    return [(*half, 1), *((*size, number) for number in numbers)]


def tile_counts(geometry: Geometry, batch: int) -> list[int]:
    """Numbers of patches to measure on a batch: few, many, and as many as can lie apart without a dense run."""
    rows, columns = geometry.grid
    apart = -(-rows // 2) * -(-columns // 2)
    most = min(apart, (geometry.height * geometry.width - 1) // geometry.area(1, 1))
    counts = {batch * most} | {2**power for power in range(12)} | {3 * 2**power for power in range(11)}
    return sorted(count for count in counts if 0 < count <= batch * most)


def scattered_mask(geometry: Geometry, batch: int, kept: int) -> torch.Tensor:
    """`kept` patches, evenly over the batch and none beside another, so that nothing is merged: (B, gh, gw), bool."""
    rows, columns = geometry.grid
    mask = torch.zeros(batch, rows, columns, dtype=torch.bool)
    apart = mask[:, ::2, ::2]
    image = torch.arange(kept) % batch
    place = torch.arange(kept) // batch * 7919 % math.prod(apart.shape[1:])  # 7919 is prime: every place once
    apart[image, place // apart.shape[2], place % apart.shape[2]] = True
    return mask
