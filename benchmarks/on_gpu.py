"""Everything that a GPU has to show, in one run: one JSON and one table at the end.

    python -m benchmarks.on_gpu --json on_gpu.json            # at most 8 minutes
    python -m benchmarks.on_gpu --dry --json dry.json         # the same parts in tiny form, on any machine

Parts: what graphs give against the CPU, how often a whole call and a training step wait for the device, milliseconds of
whole calls and of SR by kept share (where skipping patches pays), the Triton kernel, memory, and the tests marked gpu.
Networks are untrained: only times and differences are looked at. A part that fails is a row that says why; when the
time is over the remaining parts say so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from models.mask_policy import MaskPolicy
    from models.system import ConditionalSRDetector

POLICIES = ("budget=0.25", "edge=0.25", "all_fast", "all_quality", "learned")
GOOD = (0, 5)  # exit statuses of pytest: all passed; none were chosen
SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Setting:
    """Sizes of a run: networks (blocks, maps), LR images (width, height) and rounds."""

    device: torch.device
    dtype: torch.dtype
    networks: tuple[tuple[int, int], ...]
    images: tuple[tuple[int, int], ...]
    detector: str
    rounds: int


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="where the rows go")
    parser.add_argument("--dry", action="store_true", help="tiny sizes, whatever device there is")
    parser.add_argument("--limit", type=float, default=450.0, help="seconds after which no further part begins")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS), help="which parts to run")
    options = parser.parse_args(argv)

    import torch

    from utils.atomic_file import replace_text
    from utils.errors import UserError
    from utils.logger import environment

    if not (options.dry or torch.cuda.is_available()):
        raise UserError("no CUDA device is here; --dry runs the parts in tiny form on the CPU")
    setting, start, rows = _setting(options.dry), time.monotonic(), []
    for name in options.parts:
        left = options.limit - (time.monotonic() - start)
        rows += _part(name, setting, left)
    seconds = round(time.monotonic() - start, 1)
    results = {"rows": rows, "seconds": seconds, "dry": options.dry, "device": str(setting.device)}
    results["environment"] = environment()
    replace_text(options.json, json.dumps(results, indent=1) + "\n")
    for row in rows:
        print(f"{row['part']:12} " + ", ".join(f"{key} {_short(value)}" for key, value in row.items() if key != "part"))
    print(f"{seconds} s on {setting.device}")
    return 0 if all("failed" not in row for row in rows) else 1


def _setting(dry: bool) -> Setting:
    import torch

    from utils.device import choose_device

    device = choose_device("auto")
    if dry:
        return Setting(device, torch.float32, ((1, 16),), ((48, 40),), "yolov5n.yaml", 1)
    networks, images = ((8, 32), (16, 64)), ((160, 128), (320, 256), (640, 512))
    return Setting(device, torch.float16, networks, images, "yolo11n.yaml", 20)


def _part(name: str, setting: Setting, left: float) -> list[dict]:
    """The rows of a part, or one that says why there are none."""
    if left <= 0:
        return [{"part": name, "left out": "the time is over"}]
    try:
        return [{"part": name} | row for row in PARTS[name](setting, left)]
    except Exception as error:  # the other parts shall still be seen
        return [{"part": name, "failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------ what is measured


def _system(setting: Setting, blocks: int, maps: int, image: tuple[int, int]):
    """An untrained x4 system, and LR images (1, 3, h, w) for it."""
    import torch

    from models import build_sr
    from models.conditional_sr import ConditionalSR
    from models.detector_yolo import YoloDetector
    from models.execution import Execution
    from models.masker import Masker
    from models.system import ConditionalSRDetector
    from models.tiling.tile_plan import choose_halo, choose_patch

    torch.manual_seed(0)
    width, height = image
    patch = choose_patch(height, width)
    quality = build_sr("edsr", 4, {"n_blocks": blocks, "n_feats": maps, "tail": "single"})
    front = ConditionalSR(Masker(patch), build_sr("espcn", 4), quality, Execution(halo=choose_halo(patch)))
    with torch.no_grad():
        front.masker.offset.zero_()
    detector = YoloDetector(setting.detector, [f"class {number}" for number in range(5)])
    return ConditionalSRDetector(front, detector).eval(), [torch.rand(1, 3, height, width) for _ in range(2)]


def _cases(setting: Setting):
    """(blocks, maps, image, system, its prepared copy, LR images on the CPU, on the device)."""
    from deployment.prepare import prepare_system

    for blocks, maps in setting.networks:
        for image in setting.images:
            system, images = _system(setting, blocks, maps, image)
            prepared = prepare_system(system, setting.device, setting.dtype)
            name = {"edsr": f"{blocks}x{maps}", "lr": f"{image[0]}x{image[1]}"}
            yield name, system, prepared, images, [lr.to(setting.device) for lr in images]


def _prepare(prepared: ConditionalSRDetector, lr: Tensor, policy: MaskPolicy) -> None:
    """Calls until graphs are captured, which they are at the third sight of a shape."""
    for _ in range(4):
        prepared.predict(lr, policy)


def equal(setting: Setting, left: float) -> list[dict]:
    """Largest difference of the SR image from the CPU's in fp32, for images that graphs were not captured on."""
    from models.mask_policy import parse_policy

    rows = []
    name, system, prepared, images, moved = next(_cases(setting))
    for text in POLICIES:
        policy = parse_policy(text)
        _prepare(prepared, moved[0], policy)
        boxes, output = prepared.predict(moved[1], policy)
        expected, reference = system.predict(images[1], policy)
        rows.append(
            name
            | {"policy": text, "largest difference": (output.sr.float().cpu() - reference.sr).abs().max().item()}
            | {"boxes": len(boxes[0]), "boxes on the CPU": len(expected[0])}
        )
    return rows


def waits(setting: Setting, left: float) -> list[dict]:
    """How often PyTorch says that a whole call waits for the device."""
    from models.mask_policy import parse_policy

    rows = []
    name, _, prepared, _, moved = next(_cases(setting))
    for text in POLICIES:
        policy = parse_policy(text)
        _prepare(prepared, moved[0], policy)
        rows.append(name | {"policy": text, "waits": _counted(partial(prepared.predict, moved[0], policy))})
    return rows


def _counted(call: Callable[[], object]) -> int | None:
    """Synchronisations that PyTorch warns of; None without CUDA."""
    import torch

    if not torch.cuda.is_available():
        call()
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in said)


def whole(setting: Setting, left: float) -> list[dict]:
    """Milliseconds from LR image to boxes, with graphs and without, and the memory of a call."""
    from deployment.cuda_graphs import SIGHTS, eager
    from models.mask_policy import parse_policy
    from utils.timing import measure_interleaved, peak_memory_mb

    rows = []
    for name, _, prepared, _, moved in _cases(setting):
        calls = {}
        for text in POLICIES:
            graphed = partial(prepared.predict, moved[0], parse_policy(text))
            calls |= {(text, "graphs"): graphed, (text, "eager"): eager(graphed)}
        took = measure_interleaved(calls, setting.rounds, SIGHTS + 1, setting.device)
        rows += [name | {"policy": text, "how": how, "ms": timing.median_ms} for (text, how), timing in took.items()]
        peak = peak_memory_mb(calls["all_quality", "eager"], setting.device)
        rows.append(name | {"policy": "all_quality", "peak MB": peak})
    return rows


def skipping(setting: Setting, left: float) -> list[dict]:
    """SR by kept share against SR everywhere: where skipping patches pays, as windows and as the Triton kernel."""
    import torch

    from deployment.cuda_graphs import SIGHTS
    from models.mask_policy import parse_policy
    from utils.timing import measure_interleaved

    rows = []
    for name, system, prepared, _, moved in _cases(setting):
        calls = {}
        for share in SHARES:
            calls["windows", share] = partial(prepared.super_resolve, moved[0], parse_policy(f"budget={share}"))
        if setting.device.type == "cuda":
            calls |= _triton_calls(system, setting, moved[0])
        with torch.no_grad():
            took = measure_interleaved(calls, setting.rounds, SIGHTS + 1, setting.device)
        dense = took["windows", 1.0].median_ms
        for (how, share), timing in took.items():
            eta = timing.median_ms / dense / share
            rows.append(name | {"how": how, "share": share, "ms": timing.median_ms, "cost by share": eta})
    return rows


def _triton_calls(system, setting: Setting, lr: torch.Tensor) -> dict:
    import torch

    from deployment.triton_execution import TritonNetwork

    front = system.front
    network = TritonNetwork(front.sr_quality, setting.device, setting.dtype)
    rows, columns = front.masker.grid(*lr.shape[-2:])
    canvas = torch.zeros(1, 3, *(4 * side for side in lr.shape[-2:]), device=setting.device, dtype=setting.dtype)
    order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(0))
    calls = {}
    for share in SHARES:
        mask = torch.zeros(rows * columns, dtype=torch.bool)
        mask[order[: round(share * rows * columns)]] = True
        arguments = (lr, mask.view(1, rows, columns).to(setting.device), front.patch, front.execution.halo, canvas)
        calls["triton", share] = partial(network.run, *arguments)
    return calls


def step(setting: Setting, left: float) -> list[dict]:
    """A training step of stage 3: milliseconds, and how often PyTorch says that it waits for the device."""
    from benchmarks.stage3_throughput import stage3_trainer, steps_of
    from configs.stage3_schema import Stage3Config
    from data.demo import main as draw
    from utils.config import parse_config
    from utils.logger import open_run

    rows = []
    (blocks, maps), side = setting.networks[-1], 4 * setting.images[0][0]
    batch = 2 if setting.rounds == 1 else 8
    with tempfile.TemporaryDirectory() as folder:
        draw(["--out", f"{folder}/set", "--images", str(6 * batch), "2", "2", "--sr-images", "1", "1"])
        arguments = [
            f"--run.out={folder}/run", "--run.workers=0", f"--data.yaml={folder}/set/data.yaml", "--optim.epochs=1",
            f"--data.imgsz={side}", "--data.scale=4", f"--optim.batch={batch}", "--val_images=0", "--masker.patch=8",
            "--sr_fast.name=espcn", '--sr_fast.args={"n_feats": 8}', "--sr_quality.name=edsr",
            f"--detector.model={setting.detector}",
            f'--sr_quality.args={{"n_blocks": {blocks}, "n_feats": {maps}}}',
        ]  # fmt: skip
        config = parse_config(Stage3Config, "", arguments)
        steps = steps_of(stage3_trainer(config, open_run(config)))
        for _ in range(6):
            start = time.perf_counter()
            waits = _counted(partial(next, steps))
            rows.append({"ms": 1e3 * (time.perf_counter() - start), "waits": waits})
    return rows[-3:]


def tests(setting: Setting, left: float) -> list[dict]:
    """The tests marked gpu, and those of several processes."""
    names = ["tests/test_distributed.py"] if setting.device.type == "cuda" else []
    rows = []
    ends = time.monotonic() + max(60.0, left)
    for chosen in (["-m", "gpu", "tests"], names):
        if chosen:
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
            done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, ends - time.monotonic()))
            last = (done.stdout.strip().splitlines() or [""])[-1]
            row = {"tests": " ".join(chosen), "status": done.returncode, "said": last}
            rows.append(row if done.returncode in GOOD else row | {"failed": "see what was said"})
    return rows


PARTS: dict[str, Callable[[Setting, float], list[dict]]] = {
    "equal": equal,
    "waits": waits,
    "skipping": skipping,
    "whole": whole,
    "step": step,
    "tests": tests,
}

if __name__ == "__main__":
    from utils.cli import run

    run(main)
