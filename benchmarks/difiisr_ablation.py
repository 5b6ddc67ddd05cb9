"""DifIISR-DWT with one setting changed at a time: wavelet, levels, diffusion steps, kappa; one table.

    python -m benchmarks.difiisr_ablation --train datasets/hit_uav/images/train --val datasets/hit_uav/images/val

Every variant is trained from the start, as stage 2 does, for a number of steps that the options give, and measured on
the validation images beside bicubic interpolation. An interrupted run goes on where it was. Wavelets and levels change
what the codes are, so none of them can be swapped under trained weights. Writes OUT/ablation.md and OUT/ablation.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from configs.schema import NetworkConfig, Stage2Config
from utils.atomic_file import replace_text

if TYPE_CHECKING:
    from torch import device as Device

CONFIG = Path("configs/difiisr_dwt_small/stage2_sr_pretrain.yaml")
BASE = {"codec": "v5", "wavelet": "haar", "levels": 2, "timesteps": 15, "kappa": 2.0, "cond": "encoded"}
COLUMNS = ("changed", "psnr", "ssim", "lpips", "params_k", "gmacs", "train_steps")


def variants(wavelets: list[str], levels: list[int], steps: list[int], kappas: list[float]) -> dict[str, dict]:
    """Name -> arguments of the network; the base first, then every other value of one setting."""
    found: dict[str, dict] = {"base": BASE}
    changes = [("wavelet", wavelets), ("levels", levels), ("timesteps", steps), ("kappa", kappas)]
    for key, values in changes:
        found |= {f"{key} {value:g}" if key != "wavelet" else f"{key} {value}": BASE | {key: value}
                  for value in values if value != BASE[key]}  # fmt: skip
    return found


def settings(options: argparse.Namespace, args: dict) -> Stage2Config:
    """Those of the configuration file with the options' images and sizes, and these arguments of the network."""
    from utils.config import load_config

    config = load_config(Stage2Config, options.config)
    own = dict(config.sr_quality.args) | args
    own["steps"] = own["timesteps"]
    data = replace(config.data, train=options.train, val=options.val, samples_per_epoch=options.samples)
    optim = replace(config.optim_quality, epochs=options.epochs, batch=options.batch)
    loss = replace(config.loss, perceptual_weights=options.lpips)
    run = replace(config.run, out=str(options.out), seed=options.seed, device=options.device, threads=options.threads)
    return replace(
        config, run=run, data=replace(data, patch=options.patch), optim_quality=optim, loss=loss,
        sr_quality=NetworkConfig("difiisr_dwt", own),
    )  # fmt: skip


def rows_of(name: str, config: Stage2Config, options: argparse.Namespace, device: Device) -> list[dict]:
    """Train one variant (or take up its training), and measure it; the base with fewer sampling steps, too."""
    from models import build_sr
    from training.sr_phases import train_in_phases
    from training.sr_training import build_network
    from utils.flops_counter import count_macs_at, count_parameters

    network = build_network("sr_quality", config.sr_quality, config)
    folder = Path(config.run.out) / name.replace(" ", "_")
    own = replace(config, data=replace(config.data, val=[]))  # measured once, at the end
    train_in_phases("sr_quality", network, own, config.optim_quality, folder)
    network.to(device).eval()
    one_step = build_sr("difiisr_dwt", config.scale, config.sr_quality.args | {"steps": 1})
    costs = {
        "params_k": count_parameters(network) / 1e3,
        "gmacs": count_macs_at(one_step, 720 // config.scale, 1280 // config.scale) / 1e9,
        "train_steps": config.data.samples_per_epoch // config.optim_quality.batch * config.optim_quality.epochs,
    }
    found = {name: network}
    if name == "base":
        fewer = (steps for steps in options.sampling if steps < network.steps)
        found |= {f"base, sampling {steps}": network.with_sampling(steps) for steps in fewer}
    return [
        {"changed": label, "args": which.spec["args"], **quality(which, config, options.limit, device), **costs}
        for label, which in found.items()
    ]


def quality(network, config: Stage2Config, limit: int, device: Device) -> dict[str, float | None]:
    """Means over the validation images: PSNR and SSIM on Y, and LPIPS where its weights are named."""
    import torch

    from evaluation.sr_eval import border_of, validation_sets
    from loading.load_lpips import load_lpips
    from models.arbitrary_scale import super_resolve
    from utils.convert import to_image, to_tensor
    from utils.metrics import mean_over_images, psnr_y, ssim_y

    weights, border = config.loss.perceptual_weights, border_of(config.scale)
    judge = load_lpips(weights).to(device) if weights else None
    scores: dict[str, list[float]] = {"psnr": [], "ssim": [], "lpips": []}
    for _, pairs in validation_sets(config.data.val, [config.scale], config.data.max_pixels).values():
        for _, lr, hr in pairs[: limit or None]:
            with torch.no_grad():
                sr = to_image(super_resolve(network, to_tensor(lr, device), hr.shape[:2]))
                if judge is not None:
                    scores["lpips"].append(judge(to_tensor(sr, device), to_tensor(hr, device)).item())
            scores["psnr"].append(psnr_y(sr, hr, border))
            scores["ssim"].append(ssim_y(sr, hr, border))
    return {key: mean_over_images(values) if values else None for key, values in scores.items()}


def table(rows: list[dict], options: argparse.Namespace) -> str:
    """The rows as Markdown."""
    head = ["", "PSNR, dB", "SSIM", "LPIPS", "parameters, K", "GMAC a step", "training steps"]
    forms = ("{}", "{:.3f}", "{:.4f}", "{:.4f}", "{:,.1f}", "{:,.1f}", "{:,}")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [form.format(row[key]) if row[key] is not None else "" for key, form in zip(COLUMNS, forms)]
        lines.append("| " + " | ".join(cells) + " |")
    base = ", ".join(f"{key} {value}" for key, value in BASE.items())
    return (
        "# DifIISR-DWT, one setting changed at a time\n\n"
        f"Base: {base}. Trained on {', '.join(Path(folder).name for folder in options.train)}, measured on"
        f" {', '.join(Path(folder).name for folder in options.val)}: PSNR and SSIM on Y, border = scale, LR by bicubic"
        " interpolation. All T steps are sampled unless the line says otherwise. GMAC of one of them, for an output of"
        f" 1280 x 720. {origin(options)}\n\n"
    ) + "\n".join([*lines, ""])


def origin(options: argparse.Namespace) -> str:
    """What was trained how long, where and when; folders by their names alone."""
    from utils.logger import environment

    made = environment()
    named = f"--epochs {options.epochs} --samples {options.samples} --batch {options.batch} --patch {options.patch}"
    limit = f", {options.limit} images of each folder" if options.limit else ""
    return (
        f"`python -m benchmarks.difiisr_ablation {named}`{limit}; seed {options.seed}; {made['cpu']}, {made['threads']}"
        f" thread{'s'[: made['threads'] > 1]}, PyTorch {made['versions']['torch']}, {made['date'][:10]}."
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", required=True, help="folders of HR training images")
    parser.add_argument("--val", nargs="+", required=True, help="folders of HR validation images")
    parser.add_argument("--out", type=Path, default=Path("runs/difiisr_ablation"), help="folder of table and runs")
    parser.add_argument("--config", type=Path, default=CONFIG, help="stage 2: everything that no option here sets")
    parser.add_argument("--wavelets", nargs="*", default=["haar", "db2", "bior1.3"])
    parser.add_argument("--levels", nargs="*", type=int, default=[1, 2, 3], help="of the wavelet transform")
    parser.add_argument("--steps", nargs="*", type=int, default=[5, 10, 15, 20], help="T of the diffusion")
    parser.add_argument("--kappas", nargs="*", type=float, default=[1.0, 2.0, 4.0], help="strengths of the noise")
    parser.add_argument("--sampling", nargs="*", type=int, default=[1, 5], help="sampling steps of the base, besides T")
    parser.add_argument("--epochs", type=int, default=4, help="of each training")
    parser.add_argument("--samples", type=int, default=2000, help="patches an epoch")
    parser.add_argument("--batch", type=int, default=8, help="patches a step")
    parser.add_argument("--patch", type=int, default=32, help="side of a patch in LR pixels")
    parser.add_argument("--limit", type=int, default=0, help="validation images of each folder, 0 takes all")
    parser.add_argument("--lpips", nargs="*", default=[], help="weight files of LPIPS: a loss term and a column")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 keeps PyTorch's choice")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    from models.sr_fast import Bicubic
    from utils.device import choose_device, set_threads

    set_threads(options.threads)
    device = choose_device(options.device)
    wanted = variants(options.wavelets, options.levels, options.steps, options.kappas)
    configs = {name: settings(options, args) for name, args in wanted.items()}
    floor = quality(Bicubic(configs["base"].scale), configs["base"], options.limit, device)
    rows = [{"changed": "bicubic", **floor, "params_k": None, "gmacs": None, "train_steps": None}]
    for name, config in configs.items():
        rows += rows_of(name, config, options, device)
        replace_text(options.out / "ablation.json", json.dumps(rows, indent=1))  # after each: a run may be stopped
        replace_text(options.out / "ablation.md", table(rows, options))
    print(table(rows, options))
    return 0


if __name__ == "__main__":
    from utils.cli import run

    run(main)
