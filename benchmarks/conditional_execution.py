"""Does a skipped patch save its time? Conditional execution against dense networks and against simpler ways.

    python -m benchmarks.conditional_execution --json results.json [--quick]

Execution efficiency eta(r) = (T_masker + T_fast + r T_quality) / T_conditional(r); 1 means that every skipped patch is
time saved. T_quality is the fastest dense execution known here (fused convolutions). All ways run the same prepared
networks, interleaved; ratios are medians over rounds, each against the dense run of the same round.

Strategies: `auto` (the project's default tiling), `exact` (halo of the whole receptive field), and as rivals
`patch_loop` (patch by patch at batch 1, as ClassSR was released), `naive_tiles` (halo of 8, one batch, nothing merged)
and `compute_all` (both networks everywhere, multiplied by the mask).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

NETWORKS = {
    "edsr_8x32": ("edsr", {"n_blocks": 8, "n_feats": 32, "tail": "single"}),
    "edsr_16x64": ("edsr", {"n_blocks": 16, "n_feats": 64, "tail": "single"}),
    "srresnet": ("srresnet", {}),
}
FAST = ("espcn", {"n_feats": 8})
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
MASKS = ("random", "clustered")
RIVALS = ("patch_loop", "naive_tiles", "compute_all")
NAIVE_HALO = 8
DRAWS = 2  # masks per setting, taken in turn


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file for the rows")
    parser.add_argument("--quick", action="store_true", help="EDSR 16x64, x4, LR 160x128, batch 1 only")
    parser.add_argument("--page", type=Path, help="also write a Markdown page")
    parser.add_argument("--nets", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--scales", type=int, nargs="+", choices=(2, 4), default=[2, 4])
    parser.add_argument("--lr", nargs="+", default=["160x128", "320x320"], help="width x height in LR pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtypes", nargs="+", choices=("fp32", "bf16", "fp16", "int8"), default=["fp32", "bf16"])
    parser.add_argument(
        "--data", type=Path, help="LR images on which SR_Quality is calibrated in int8; the rest is fp32"
    )
    parser.add_argument("--strategies", nargs="+", default=["auto", "exact", *RIVALS])
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="NET=FILE",
        help="trained stage-2 checkpoints (default: shipped weights)",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args(argv)
    if "int8" in options.dtypes and not options.data:
        parser.error("int8 needs --data")
    if options.quick:
        options.nets, options.scales, options.lr, options.batches = ["edsr_16x64"], [4], ["160x128"], [1]

    import torch

    from utils.atomic_file import replace_text
    from utils.device import choose_device, set_threads
    from utils.logger import environment

    set_threads(options.threads)
    device = choose_device(options.device)
    settings = list(itertools.product(options.nets, options.scales, options.lr, options.batches, options.dtypes))
    rows = []
    for number, (net, scale, lr, batch, dtype) in enumerate(settings, 1):
        print(f"[{number}/{len(settings)}] {net} x{scale}, LR {lr}, batch {batch}, {dtype}", flush=True)
        width, height = map(int, lr.split("x"))
        setting = {"net": net, "scale": scale, "lr": lr, "batch": batch, "dtype": dtype}
        rows += measure_setting(setting, (height, width), options, device)
        results = {"rows": rows, "environment": environment() | {"threads": torch.get_num_threads()}}
        results["command"] = "python -m benchmarks.conditional_execution " + " ".join(argv or sys.argv[1:])
        results["seed"], results["rounds"] = options.seed, options.rounds
        replace_text(options.json, json.dumps(results, indent=1) + "\n")
    print(cost_table(rows))
    if options.page:
        replace_text(options.page, page(results))
    return 0


def measure_setting(setting: dict, size: tuple[int, int], options, device) -> list[dict]:
    """Rows of one network, scale, size, batch and precision."""
    import numpy as np
    import torch

    from utils.device import DTYPES
    from utils.timing import measure_interleaved

    dtype, batch = DTYPES.get(setting["dtype"], torch.float32), setting["batch"]
    front, trained = prepared_front(setting, size, options, device, dtype)
    hr, lr = images(size, setting["scale"], batch)
    lr = lr.to(device)
    generator = np.random.default_rng(options.seed)
    calls, outputs = {}, {}
    base = {
        "masker": lambda: front.masker(lr),
        "fast": lambda: front.sr_fast(lr),
        "quality": lambda: front.sr_quality(lr),
        "all_quality": lambda: infer(front, lr, torch.ones(grid_of(front, lr), dtype=torch.bool)),
    }
    for share, kind in itertools.product(SHARES, MASKS):
        if share in (0.0, 1.0) and kind == "clustered":
            continue  # the same mask as the random one
        masks = [draw_mask(generator, grid_of(front, lr), share, kind).to(device) for _ in range(DRAWS)]
        for strategy in options.strategies:
            run = strategies(front)[strategy]
            turn = itertools.cycle(masks)
            calls[share, kind, strategy] = lambda run=run, turn=turn: run(lr, next(turn))
            outputs[share, kind, strategy] = (masks[0], run)
        calls[share, kind, "assembly"] = assembly(front, lr, masks[0])
    with torch.inference_mode():
        timings = measure_interleaved(base | calls, options.rounds, 2, device)
        samples = {name: np.array(timing.samples) for name, timing in timings.items()}
        rows = []
        dense = fused_dense(front, lr)
        for (share, kind, strategy), (mask, run) in outputs.items():
            kept = float(mask.float().mean())
            took = samples[share, kind, strategy]
            ideal = samples["masker"] + samples["fast"] + kept * samples["quality"]
            sr, expected = run(lr, mask).float(), dense(mask)
            row = {key: setting[key] for key in ("net", "scale", "lr", "batch")}
            row |= {"r": share, "mask": kind if 0 < share < 1 else "any", "dtype": setting["dtype"]}
            row |= {"strategy": strategy, "eta": float(np.median(ideal / took))}
            row |= {"ratio_to_quality": float(np.median(took / samples["all_quality"]))}
            row |= {"ratio_to_dense": float(np.median(took / samples["quality"]))}
            row |= {"max_abs_diff": (sr - expected).abs().max().item()}
            row |= {"psnr_loss_db": psnr(expected, hr) - psnr(sr, hr), "trained": trained}
            row |= {"patch": front.patch, "halo": front.execution.halo, "kept": kept, "ms": float(np.median(took))}
            row |= {"ms_p10": float(np.percentile(took, 10)), "ms_p90": float(np.percentile(took, 90))}
            row |= {f"{name}_ms": float(np.median(samples[name])) for name in ("masker", "fast", "quality")}
            parts = np.median(samples[share, kind, "assembly"])
            row |= {"masker_share": row["masker_ms"] / row["ms"], "gather_scatter_share": float(parts / row["ms"])}
            rows.append(row)
    return rows


def prepared_front(setting: dict, size: tuple[int, int], options, device, dtype):
    """Prepared front end with the default tiling for this size, and whether SR_Quality is trained."""
    import torch

    from deployment.export.quantise import calibration_images
    from deployment.prepare import prepare_front
    from loading.load_sr import load_sr, shipped_file
    from models import build_sr
    from models.conditional_sr import ConditionalSR
    from models.edsr_int8 import quantised
    from models.execution import Execution
    from models.masker import Masker
    from models.tiling.tile_plan import choose_halo, choose_patch

    torch.manual_seed(0)
    name, args = NETWORKS[setting["net"]]
    quality, trained = build_sr(name, setting["scale"], args), None
    file = dict(entry.split("=", 1) for entry in options.weights).get(setting["net"])
    if file is None:
        with contextlib.suppress(ValueError):  # no weights of this network are shipped
            file = shipped_file(quality)
    if file is not None:
        trained = load_sr(file)
    if trained is not None and trained.scale == setting["scale"]:
        quality = trained.eval()
    is_trained = quality is trained
    if not is_trained:  # its last body layer is zero at first: differences would not show
        for parameter in quality.body[-1].parameters():
            torch.nn.init.normal_(parameter, std=0.01)
    if setting["dtype"] == "int8":
        quality = quantised(quality, map(torch.from_numpy, calibration_images(options.data, None)))
    patch = choose_patch(*size)
    fast = build_sr(FAST[0], setting["scale"], FAST[1])
    front = ConditionalSR(Masker(patch), fast, quality, Execution(halo=choose_halo(patch))).eval()
    return prepare_front(front, device, dtype), is_trained


def strategies(front) -> dict:
    """Name -> function of (LR images, mask) that returns the fused SR images."""
    import torch

    from models.tiling.run_patches import expand_mask, run_on_tiles
    from models.tiling.whole import run_whole

    halo, tiles, unlimited = front.execution.halo, front.execution.tiles, front.with_execution(halo=None)

    def patch_loop(lr, mask):
        front.masker(lr)
        canvas = front.sr_fast(lr)
        for image, row, column in mask.nonzero().tolist():
            one = torch.zeros_like(mask[image : image + 1])
            one[0, row, column] = True
            part = canvas[image : image + 1]
            part.copy_(run_on_tiles(front.sr_quality, lr[image : image + 1], one, front.patch, halo, part))
        return canvas.clamp_(0, 1)

    def naive_tiles(lr, mask):
        front.masker(lr)
        options = replace(tiles, merge=False)
        canvas = front.sr_fast(lr)
        return run_on_tiles(front.sr_quality, lr, mask, front.patch, NAIVE_HALO, canvas, options).clamp_(0, 1)

    def compute_all(lr, mask):
        front.masker(lr)
        fast, quality = front.sr_fast(lr), run_whole(front.sr_quality, lr, tiles.max_pixels)
        pixels = expand_mask(mask, front.patch * front.scale, *fast.shape[-2:]).to(fast.dtype)
        return (pixels * quality + (1 - pixels) * fast).clamp_(0, 1)

    def exact(lr, mask):
        return infer(unlimited, lr, mask)

    ways = {"auto": lambda lr, mask: infer(front, lr, mask), "exact": exact}
    return ways | {"patch_loop": patch_loop, "naive_tiles": naive_tiles, "compute_all": compute_all}


def infer(front, lr, mask):
    """The project's own execution of a given mask."""
    from models.mask_policy import GivenMask

    return front.infer(lr, GivenMask(mask.to(lr.device))).sr


def assembly(front, lr, mask):
    """A call of what conditional execution adds: planning, gathering, scattering; SR_Quality costs nothing in it."""
    import torch

    from models.tiling.run_patches import run_on_tiles

    class Nothing:
        scale, capabilities = front.scale, front.sr_quality.capabilities

        def __call__(self, part):
            sides = [side * self.scale for side in part.shape[-2:]]
            return part.new_zeros(1).expand(part.shape[0], 3, *sides)

    how = front.execution
    canvas = torch.zeros(lr.shape[0], 3, *(side * front.scale for side in lr.shape[-2:]), device=lr.device)
    return lambda: run_on_tiles(Nothing(), lr, mask, front.patch, how.halo, canvas, how.tiles)


def grid_of(front, lr) -> tuple[int, int, int]:
    from models.masker import patch_grid

    return (len(lr), *patch_grid(*lr.shape[-2:], front.patch))


def draw_mask(generator, grid: tuple[int, int, int], share: float, kind: str):
    """round(share * patches) patches per image: anywhere, or those nearest to one or two centres."""
    import numpy as np
    import torch

    batch, rows, columns = grid
    score = generator.random(grid)
    if kind == "clustered":
        y, x = np.mgrid[0:rows, 0:columns]
        for image in score:
            centres = generator.uniform((0, 0), (rows, columns), (1 if rows * columns < 64 else 2, 2))
            distance = np.min([np.hypot(y - cy, x - cx) for cy, cx in centres], axis=0)
            image[:] = -distance - 1e-3 * image
    order = (-score).reshape(batch, -1).argsort(axis=1)[:, : round(share * rows * columns)]
    mask = np.zeros((batch, rows * columns), bool)
    np.put_along_axis(mask, order, True, axis=1)
    return torch.from_numpy(mask.reshape(grid))


def images(size: tuple[int, int], scale: int, batch: int):
    """A photograph of the right size, mirrored at its borders where it is too small, and its bicubic LR copy."""
    import numpy as np
    import torch
    from skimage.data import astronaut

    from utils.resize import resize

    photograph = astronaut()
    height, width = (side * scale for side in size)
    grown = np.pad(photograph, ((0, max(0, height - 512)), (0, max(0, width - 512)), (0, 0)), mode="symmetric")
    hr = np.ascontiguousarray(grown[:height, :width])
    lr = resize(hr, *size)
    to_tensor = lambda image: torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255  # noqa: E731
    return (to_tensor(picture)[None].repeat(batch, 1, 1, 1) for picture in (hr, lr))


def fused_dense(front, lr):
    """mask -> dense fusion of both networks, the definition."""
    from models.tiling.run_patches import expand_mask

    fast, quality = front.sr_fast(lr).float(), front.sr_quality(lr).float()

    def fuse(mask):
        pixels = expand_mask(mask, front.patch * front.scale, *fast.shape[-2:]).float()
        return (pixels * quality + (1 - pixels) * fast).clamp(0, 1)

    return fuse


def psnr(sr, hr) -> float:
    """PSNR on RGB in dB, over the batch."""
    import torch

    return -10 * torch.log10((sr.cpu() - hr).square().mean()).item()


def page(results: dict) -> str:
    """What was measured, how, and the table."""
    machine = results["environment"]
    sentences = __doc__.split("\n\n")
    return "\n\n".join(
        [
            "# Conditional execution, measured",
            " ".join(sentences[2].split()),
            " ".join(sentences[3].split()),
            f"`{results['command']}`, seed {results['seed']}, {results['rounds']} rounds, {machine['date']}, "
            f"{machine['cpu']}, {machine['threads']} threads, torch {machine['versions']['torch']}. LR images are "
            "bicubic copies of a photograph (antialiased, as in MATLAB). PSNR loss and difference are against dense "
            "fusion; networks without trained weights (`trained` in the JSON) say nothing about PSNR.",
            cost_table(results["rows"]) + "\n",
        ]
    )


def cost_table(rows: list[dict]) -> str:
    """Markdown: one line per setting and share, eta of every strategy, then what `auto` costs."""
    names = list(dict.fromkeys(row["strategy"] for row in rows))
    lines = ["| net | x | LR | B | dtype | mask | r | " + " | ".join(f"eta {n}" for n in names) + " | auto: time / "]
    lines[0] += "all-quality | ms | max diff | PSNR loss dB |"
    lines.append("|" + "---|" * (11 + len(names)))
    settings: dict[tuple, dict] = {}
    for row in rows:
        key = tuple(row[k] for k in ("net", "scale", "lr", "batch", "dtype", "mask", "r"))
        settings.setdefault(key, {})[row["strategy"]] = row
    for key, ways in settings.items():
        cells = [f"{ways[n]['eta']:.2f}" if n in ways else "" for n in names]
        own = ways.get("auto", {})
        tail = [f"{own[k]:{f}}" for k, f in (("ratio_to_quality", ".3f"), ("ms", ".1f"), ("max_abs_diff", ".1e"),
                                               ("psnr_loss_db", ".3f"))] if own else []  # fmt: skip
        lines.append("| " + " | ".join([*map(str, key), *cells, *tail]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    from utils.cli import run

    run(main)
