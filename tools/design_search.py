"""Which SR_Quality, patch size and kept share fit into a number of milliseconds on this device?

    python -m tools.design_search --detector yolo11n.yaml --imgsz 512 640 --latency_ms 60 --half --out runs/design

Times SR networks of several depths and widths, the detector, SR_Fast and the Masker (weights do not matter), predicts
the milliseconds of every design for every kept share, and proposes the strongest network that may run on at least
`--least_share` of the patches. Tiles of fused networks are timed; the native kernel is a little faster. Writes
table.md, designs.json and designs.png. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.tiling.tile_plan import Geometry

PATCHES = (8, 16, 32)
TILE_PATCHES = (1, 4, 16)  # windows of 34 x 34 pixels in the timed calls, from which time per call and pixel follow
CONF = 0.25


@dataclass(frozen=True)
class Costs:
    """Milliseconds and MACs of one SR_Quality on the device.

    Args:
        depth, width: residual blocks and feature maps of an EDSR.
        call_ms: of one call, whatever its size.
        pixel_ms: per LR pixel.
        dense_ms: of a whole LR image.
        pixel_macs: multiply-adds per LR pixel.
    """

    depth: int
    width: int
    call_ms: float
    pixel_ms: float
    dense_ms: float
    pixel_macs: float


@dataclass(frozen=True)
class Design:
    """A network, a patch size, and the largest kept share that fits.

    Args:
        depth, width: of SR_Quality.
        patch, halo: LR pixels.
        kept_share: largest share of the patches within the limit, 0 where not even one fits.
        ms: predicted milliseconds at this share, LR image to boxes.
        sr_gmacs: multiply-adds of the front end at this share, halos included.
        all_ms: predicted milliseconds with SR_Quality everywhere.
    """

    depth: int
    width: int
    patch: int
    halo: int
    kept_share: float
    ms: float
    sr_gmacs: float
    all_ms: float


def predicted_ms(costs: Costs, geometry: Geometry, kept: int, rest_ms: float, fast_ms: float) -> float:
    """Milliseconds of one image with `kept` patches; `rest_ms`: detector and Masker, `fast_ms`: SR_Fast."""
    patches = geometry.grid[0] * geometry.grid[1]
    if kept == 0:
        return rest_ms + fast_ms
    if kept == patches:
        return rest_ms + costs.dense_ms
    tiles = costs.call_ms + kept * geometry.area(1, 1) * costs.pixel_ms
    return rest_ms + fast_ms + min(tiles, costs.dense_ms)


def best_design(
    costs: Costs, geometry: Geometry, latency_ms: float, rest_ms: float, fast_ms: float, fast_macs: float
) -> Design:
    """The largest kept share of one network and patch size within a limit."""
    patches = geometry.grid[0] * geometry.grid[1]
    times = [predicted_ms(costs, geometry, kept, rest_ms, fast_ms) for kept in range(patches + 1)]
    kept = max((kept for kept, ms in enumerate(times) if ms <= latency_ms), default=0)
    pixels = geometry.height * geometry.width
    macs = min(kept * geometry.area(1, 1), pixels) * costs.pixel_macs + (fast_macs if kept < patches else 0)
    return Design(
        costs.depth, costs.width, geometry.patch, geometry.halo,
        kept / patches, times[kept], macs / 1e9, times[-1],
    )  # fmt: skip


def propose(designs: list[Design], least_share: float, pixel_macs: dict[tuple[int, int], float]) -> Design | None:
    """The strongest network (most MACs per pixel) with enough patches; of its patch sizes the one that keeps most."""
    enough = [design for design in designs if design.kept_share >= least_share]
    return max(enough, key=lambda d: (pixel_macs[d.depth, d.width], d.kept_share, -d.patch), default=None)


def measure_costs(options, device, dtype) -> tuple[list[Costs], float, float, float]:
    """Costs of all networks, milliseconds of detector and Masker, of SR_Fast, and MACs of SR_Fast and Masker."""
    import torch
    from tqdm import tqdm

    from deployment.prepare import prepare_network
    from deployment.prepare_detector import prepare_detector
    from models import build_sr
    from models.detector_yolo import YoloDetector
    from models.masker import Masker
    from utils.flops_counter import count_macs_at
    from utils.timing import measure_interleaved

    height, width = (side // options.scale for side in options.imgsz)
    detector = YoloDetector(options.detector, [f"class {number}" for number in range(options.classes)]).eval()
    masker, fast = Masker(16).eval(), build_sr("espcn", options.scale, {"n_feats": 8}).eval()
    networks = {
        (depth, maps): build_sr("edsr", options.scale, {"n_blocks": depth, "n_feats": maps, "tail": "single"}).eval()
        for depth in options.depths
        for maps in options.widths
    }
    lr, hr = torch.rand(1, 3, height, width, device=device), torch.rand(1, 3, *options.imgsz, device=device)
    prepared = prepare_detector(detector, device, dtype)
    calls = {"detector": lambda: prepared.predict(hr, CONF)}
    for name, network in (("masker", masker), ("fast", fast)):
        ready = prepare_network(network, device, dtype)
        calls[name] = lambda ready=ready: ready(lr)
    for key, network in networks.items():
        ready = prepare_network(network, device, dtype)
        calls[key, "dense"] = lambda ready=ready: ready(lr)
        for count in TILE_PATCHES:
            tiles = torch.rand(count, 3, 34, 34, device=device)
            calls[key, count] = lambda ready=ready, tiles=tiles: ready(tiles)
    bar = tqdm(total=options.rounds + 2, desc="design search", unit="round", disable=None)
    with torch.inference_mode():
        timings = measure_interleaved(calls, options.rounds, 2, device, on_round=bar.update)
    bar.close()
    ms = {name: timing.median_ms for name, timing in timings.items()}
    costs = []
    for (depth, maps), network in networks.items():
        few, many = (ms[(depth, maps), count] for count in (TILE_PATCHES[0], TILE_PATCHES[-1]))
        pixel_ms = max(0.0, many - few) / (34**2 * (TILE_PATCHES[-1] - TILE_PATCHES[0]))
        call_ms = max(0.0, few - 34**2 * pixel_ms)
        macs = count_macs_at(network, height, width) / (height * width)
        costs.append(Costs(depth, maps, call_ms, pixel_ms, ms[(depth, maps), "dense"], macs))
    fixed_macs = count_macs_at(fast, height, width) + count_macs_at(masker, height, width)
    return costs, ms["detector"] + ms["masker"], ms["fast"], fixed_macs


def design_table(designs: list[Design], proposal: Design | None) -> str:
    """Markdown; the proposal is bold."""
    lines = [
        "| SR_Quality (EDSR) | P | halo | kept share | predicted ms | SR GMAC | ms with SR_Quality everywhere |",
        "|---|---|---|---|---|---|---|",
    ]
    for d in designs:
        cells = [f"{d.depth} x {d.width}", d.patch, d.halo, f"{d.kept_share:.2f}", f"{d.ms:.1f}", f"{d.sr_gmacs:.2f}"]
        cells = [f"**{cell}**" if d == proposal else str(cell) for cell in [*cells, f"{d.all_ms:.1f}"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot_designs(
    path: Path, costs: list[Costs], size: tuple[int, int], options, rest_ms: float, fast_ms: float
) -> None:
    """Predicted milliseconds against kept share, one line per network, and the limit."""
    from matplotlib.figure import Figure

    from models.tiling.tile_plan import Geometry, choose_halo

    figure = Figure((8, 5), layout="constrained")
    axes = figure.subplots()
    patch = PATCHES[-1]
    geometry = Geometry(*size, patch, choose_halo(patch))
    patches = geometry.grid[0] * geometry.grid[1]
    shown = sorted(costs, key=lambda c: c.pixel_macs)
    for number, cost in enumerate(shown):
        share = [kept / patches for kept in range(patches + 1)]
        ms = [predicted_ms(cost, geometry, kept, rest_ms, fast_ms) for kept in range(patches + 1)]
        color = (0.15 + 0.7 * number / max(1, len(shown) - 1), 0.35, 0.75 - 0.6 * number / max(1, len(shown) - 1))
        axes.plot(share, ms, color=color, label=f"EDSR {cost.depth} x {cost.width}")
    axes.axhline(options.latency_ms, color="black", linestyle="--", label=f"limit {options.latency_ms:g} ms")
    axes.set(xlabel=f"kept share (patches of {patch} LR pixels)", ylabel="predicted ms, LR image to boxes")
    axes.set_yscale("log")
    axes.legend(fontsize=7, ncols=2)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="yolo11n.yaml", help="Ultralytics model YAML")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--imgsz", type=int, nargs="+", default=[640], help="SR pixels: one side, or height and width")
    parser.add_argument("--scale", type=int, default=4, choices=(2, 3, 4))
    parser.add_argument("--latency_ms", type=float, required=True, help="milliseconds from LR image to boxes")
    parser.add_argument("--least_share", type=float, default=0.25, help="share of the patches the proposal must keep")
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 8, 16, 32], help="residual blocks")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64], help="feature maps")
    parser.add_argument("--half", action="store_true", help="16 bit: fp16 on CUDA, bf16 on CPUs")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 keeps PyTorch's choice")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    options = parser.parse_args(argv)
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        parser.error(f"--out {options.out} is not an empty folder: choose another one")
    if len(options.imgsz) > 2 or not options.latency_ms > 0 or not 0 < options.least_share <= 1:
        parser.error("--imgsz takes one or two sides; --latency_ms is positive, --least_share in (0, 1]")
    options.imgsz = options.imgsz if len(options.imgsz) == 2 else options.imgsz * 2
    unit = math.lcm(32, options.scale)
    if any(side % unit or side < unit for side in options.imgsz):
        parser.error(f"--imgsz {options.imgsz}: sides must be multiples of {unit}")

    from models.tiling.tile_plan import Geometry, choose_halo
    from utils.atomic_file import replace_text
    from utils.device import choose_device, compute_type, set_threads
    from utils.logger import environment

    set_threads(options.threads)
    device = choose_device(options.device)
    costs, rest_ms, fast_ms, fixed_macs = measure_costs(options, device, compute_type(device, options.half))
    size = tuple(side // options.scale for side in options.imgsz)
    designs = [
        best_design(cost, Geometry(*size, patch, choose_halo(patch)), options.latency_ms, rest_ms, fast_ms, fixed_macs)
        for cost in sorted(costs, key=lambda c: c.pixel_macs)
        for patch in PATCHES
    ]
    proposal = propose(designs, options.least_share, {(c.depth, c.width): c.pixel_macs for c in costs})
    lines = [design_table(designs, proposal), f"\nDetector and Masker {rest_ms:.1f} ms, SR_Fast {fast_ms:.1f} ms."]
    if proposal is None:
        lines.append(f"Nothing keeps {options.least_share:g} of the patches in {options.latency_ms:g} ms.")
    else:
        args = f"{{n_blocks: {proposal.depth}, n_feats: {proposal.width}, tail: single}}"
        lines.append(
            f"Proposal: sr_quality.args {args}, masker.patch {proposal.patch}, masker.halo {proposal.halo}, "
            f"losses.target {proposal.kept_share:.2f}: {proposal.ms:.1f} ms, {proposal.sr_gmacs:.2f} GMAC."
        )
    text = "\n".join(lines)
    command = "python -m tools.design_search " + " ".join(argv or sys.argv[1:])
    record = {"command": command, "environment": environment(), "detector_and_masker_ms": rest_ms, "fast_ms": fast_ms}
    record |= {"proposal": proposal and asdict(proposal), "designs": [asdict(design) for design in designs]}
    record["networks"] = [asdict(cost) for cost in costs]
    replace_text(options.out / "table.md", text + "\n")
    replace_text(options.out / "designs.json", json.dumps(record, indent=1) + "\n")
    plot_designs(options.out / "designs.png", costs, size, options, rest_ms, fast_ms)
    print(text)
    return 0


if __name__ == "__main__":
    from utils.cli import run

    run(main)
