"""Fair timing of several ways to do the same thing: interleaved, synchronised, warmed up; and the memory they take.

Interleaving spreads slow moments of the machine (clock changes, other processes) over all candidates alike.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

Call = Callable[[], object]
T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one candidate over `runs` calls; `samples` has one per round, in order."""

    median_ms: float
    p95_ms: float
    runs: int
    samples: tuple[float, ...] = ()


def measure_interleaved(
    calls: Mapping[str, Call],
    rounds: int,
    warmup: int = 2,
    device: torch.device | str = "cpu",
    on_round: Callable[[], object] | None = None,
) -> dict[str, Timing]:
    """Time every candidate once per round, in an order that changes from round to round.

    Args:
        calls: name -> what to time; exceptions pass through.
        rounds: timed calls of each, at least 1.
        warmup: rounds before, not counted.
        device: on CUDA the device is waited for before and after every call.
        on_round: called after every round, warm-up included (for a progress bar).

    Returns:
        Name -> median and 95th percentile in milliseconds, in the order of `calls`.

    Raises:
        ValueError: rounds below 1 or warmup below 0.
    """
    if rounds < 1 or warmup < 0:
        raise ValueError(f"measure_interleaved: rounds={rounds}, warmup={warmup}; rounds must be >= 1, warmup >= 0")
    device = torch.device(device)
    milliseconds: dict[str, list[float]] = {name: [] for name in calls}
    shuffler = random.Random(0)  # own generator: the caller's random numbers stay as they are
    order = list(calls)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would be charged to whichever candidate happens to trigger it
    try:
        for number in range(warmup + rounds):
            # Always the same predecessor would leave the same candidate with the same cold caches.
            shuffler.shuffle(order)
            for name in order:
                elapsed = time_once(calls[name], device)
                if number >= warmup:
                    milliseconds[name].append(elapsed)
            gc.collect(0)
            if on_round is not None:
                on_round()
    finally:
        if collecting:
            gc.enable()
    return {
        name: Timing(float(np.median(times)), float(np.percentile(times, 95)), len(times), tuple(times))
        for name, times in milliseconds.items()
    }


def in_turn(function: Callable[[T], object], items: list[T]) -> Call:
    """A call without arguments that takes one item (an image) after the other, round and round."""
    endless = itertools.cycle(items)
    return lambda: function(next(endless))


def spread(length: int, count: int) -> list[int]:
    """Up to `count` different indices, evenly spread over range(length)."""
    return sorted({round(position) for position in np.linspace(0, length - 1, min(count, length)).tolist()})


def time_once(call: Call, device: torch.device) -> float:
    """Milliseconds of one call, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elapsed = time.perf_counter() - start
    del result  # freed after the clock stopped
    return 1e3 * elapsed


def peak_memory_mb(call: Call, device: torch.device | str = "cpu") -> float | None:
    """Memory in MB (10^6 bytes) that one call takes at its peak, on top of what was held before it (weights, inputs).

    CUDA: PyTorch's allocator. CPU: the process's peak resident set, which only Linux can reset; None elsewhere.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    _return_free_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present size
        before = _resident_peak()
        call()
        return max(0.0, (_resident_peak() - before) / 1e6)
    except (OSError, ValueError):
        return None


def _resident_peak() -> int:
    """Peak resident set of this process in bytes. Raises OSError or ValueError where the system does not tell."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmHWM in /proc/self/status")


def _return_free_memory() -> None:
    """Hand memory that earlier calls have freed back to the system; else it would hide what the next call takes."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # not glibc: the figure is then a lower bound
        return
