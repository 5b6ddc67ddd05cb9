"""CMSR tables of an arbitrary-scale network: measured on photographs, kept as YAML, bound to the network's weights.

    python -m tools.cmsr_tables --weights lm_lte.pth --hr DIV2K_train_HR --out lm_lte_cmsr.yaml

For every target scale LR images are made by bicubic interpolation; see `build_table` of the network. Then
`evaluate.py sr --cmsr lm_lte_cmsr.yaml` and `inference.py --sr-only --cmsr lm_lte_cmsr.yaml` render beyond x4 by them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from models.capabilities import Table, Tables

MAX_PIXELS = 100_000_000  # of an HR image


def lr_images(folders: list[str], scale: float, limit: int, device: torch.device, title: str) -> Iterator[Tensor]:
    """LR images (1, 3, h, w) of the HR images of folders, made by bicubic interpolation, under a progress bar.

    Raises:
        ImageError: an empty folder, or an image that is unreadable or smaller than an LR pixel.
    """
    from tqdm import tqdm

    from data.sr_pairs import benchmark_files, read_pair
    from utils.convert import to_tensor

    files = [hr for folder in folders for hr, _ in benchmark_files(hr_folder(folder), scale)[: limit or None]]
    for file in tqdm(files, desc=title, unit="image", leave=False, disable=None):
        yield to_tensor(read_pair(file, None, scale, MAX_PIXELS)[0], device)


def hr_folder(folder: str) -> Path:
    """HR/ inside a folder of the Set5 style, else the folder itself."""
    return Path(folder) / "HR" if (Path(folder) / "HR").is_dir() else Path(folder)


def described(scale: float, table: Table, shares: list[float]) -> str:
    """A line about a table: its levels, and the share of the HR pixels that it renders on the images."""
    levels = [f"x{s:g} up to {strength:g}" for s, strength in sorted(table.items()) if s != scale]
    words = (
        f"{', '.join(levels)}, x{scale:g} beyond" if levels else "everything at full scale, nothing else is good enough"
    )
    return f"x{scale:g}: {words}; renders {sum(shares) / len(shares):.1%} of the pixels of {len(shares)} images"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", required=True, help="weights of a network that renders by such tables (the lm_* networks)"
    )
    parser.add_argument(
        "--hr", required=True, nargs="+", help="folders of HR images; the paper takes DIV2K's training set"
    )
    parser.add_argument("--scales", type=float, nargs="+", help="target scales; the network has its own defaults")
    parser.add_argument(
        "--tolerance", type=float, help="largest squared error of a strength, in [-1, 1]; the network has its own"
    )
    parser.add_argument("--limit", type=int, default=0, help="only the first images of each folder, 0 takes all")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 keeps PyTorch's choice")
    parser.add_argument("--out", type=Path, required=True, help="YAML file")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    options = parser.parse_args(argv)
    if options.out.exists() and not options.overwrite:
        parser.error(f"--out {options.out} exists: choose another name or add --overwrite")
    if (options.tolerance is not None and options.tolerance <= 0) or options.limit < 0:
        parser.error("--tolerance must be positive, --limit not negative")

    from loading.cmsr_files import TableFile, network_fingerprint, save_tables
    from loading.published_weights import spec_text
    from prediction.sr_inference import load_sr_for, plain_scale
    from utils.device import choose_device, set_threads
    from utils.yaml_strict import ConfigError

    set_threads(options.threads)
    device = choose_device(options.device)
    network = load_sr_for(options.weights, None).to(device).eval()
    coarse, valid = network.capabilities.coarse, network.capabilities.scales
    if coarse is None:
        raise ConfigError(f"{options.weights}: holds {spec_text(network.spec)}, which does not render by tables")
    scales, tolerance = options.scales or coarse.targets, options.tolerance or coarse.tolerance
    if not all(scale in valid and scale > 1 for scale in scales):
        parser.error(f"--scales {scales}: give numbers above 1, up to {valid.highest:g}")

    tables: Tables = {}
    for scale in sorted({plain_scale(scale) for scale in scales}):
        source = (options.hr, scale, options.limit, device)
        tables[scale] = network.build_table(lr_images(*source, f"x{scale:g}"), scale, tolerance)
        by_table = network.with_tables({scale: tables[scale]})
        shares = [
            by_table.rendered_share(lr, tuple(round(scale * side) for side in lr.shape[-2:]))
            for lr in lr_images(*source, f"x{scale:g}, share")
        ]
        print(described(scale, tables[scale], shares), flush=True)
        # In every round: what is there survives an interruption.
        save_tables(options.out, TableFile(tables, network_fingerprint(network)))
    print(f"tables: {options.out}, for {spec_text(network.spec)}")
    return 0


if __name__ == "__main__":
    from utils.cli import run

    run(main)
