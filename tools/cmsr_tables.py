"""CMSR tables of an arbitrary-scale network: measured on photographs, kept as YAML, bound to the network's weights.

    python -m tools.cmsr_tables --weights lm_lte.pth --hr DIV2K_train_HR --out lm_lte_cmsr.yaml

For every target scale LR images are made by bicubic interpolation; see `build_table` in models/lmf/cmsr.py. Then
`evaluate.py sr --cmsr lm_lte_cmsr.yaml` and `inference.py --sr-only --cmsr lm_lte_cmsr.yaml` render beyond x4 by them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from data.sr_pairs import benchmark_files, read_pair
from loading.load import complete
from loading.published_weights import describe
from models.lmf.cmsr import TARGETS, TOLERANCE, Table, Tables, build_table, rendered_share
from models.lmf.network import LMF
from models.lmf.queries import LARGEST_SCALE
from prediction.sr_inference import load_sr_for, plain_scale
from utils.atomic_file import replace_text
from utils.checkpoint import checksum
from utils.cli import run
from utils.convert import to_tensor
from utils.device import choose_device
from utils.yaml_strict import ConfigError, dump_yaml, load_yaml

MAX_PIXELS = 100_000_000  # of an HR image
REMEDY = "make tables for it with `python -m tools.cmsr_tables`"


@dataclass(frozen=True)
class TableFile:
    """What a file of tables holds.

    Args:
        tables: {target scale: {scale of a level: largest modulation strength}}, see models/lmf/cmsr.py.
        network: `fingerprint` of the network that they were measured on; None in files that the LMF authors publish.
    """

    tables: Tables
    network: str | None


def fingerprint(network: LMF) -> str:
    """SHA-256, in hex, of what a network computes: its arguments besides the scale, and its weights."""
    spec = complete(network.spec)
    args = {key: value for key, value in sorted(spec["args"].items()) if key != "scale"}
    weights = {key: value.cpu() for key, value in network.state_dict().items()}
    return checksum({"name": spec["name"], "args": args, "weights": weights})


def belongs(file: TableFile, network: nn.Module) -> bool:
    """Whether the tables were measured on this network, as far as they tell."""
    return isinstance(network, LMF) and file.network in (None, fingerprint(network))


def use_tables(network: nn.Module, path: str | Path) -> None:
    """Let a network render beyond x4 by the tables of a file.

    Raises:
        ConfigError: no such tables, or those of another network.
    """
    file = load_tables(path)
    if not belongs(file, network):
        raise ConfigError(f"{path}: {foreign(file)}, not to {describe(network.spec)}; {REMEDY}")
    if file.network is None:
        print(f"{path}: does not say which weights its tables belong to; taken as those of {describe(network.spec)}")
    network.cmsr = file.tables


def foreign(file: TableFile) -> str:
    """To which network tables belong."""
    return f"belongs to the network with the fingerprint {file.network[:12]}" if file.network else "belongs to an LMF"


# --------------------------------------------------------------------------------------------------------------- files


def save_tables(path: str | Path, file: TableFile) -> None:
    """Write tables in the order of their scales; the file is replaced in one step."""
    tables = {s: dict(sorted(table.items())) for s, table in sorted(file.tables.items())}
    replace_text(path, dump_yaml({"network": file.network, "tables": tables}))


def load_tables(path: str | Path) -> TableFile:
    """Read tables, also those that the authors of LMF publish.

    Raises:
        ConfigError: not such a file; the message names the file and the entry.
    """
    content, network = load_yaml(path), None
    if isinstance(content, dict) and "tables" in content:
        network, content = content.get("network"), content["tables"]
        if not isinstance(network, str | None):
            raise ConfigError(f"{path}: network is {network!r}, expected a fingerprint; build the tables anew")
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path}: expected CMSR tables {{target scale: {{scale: strength}}}}; build them anew")
    for target, table in content.items():
        _check_scale(path, target)
        if not isinstance(table, dict) or not table:
            raise ConfigError(f"{path}: the table of target {target} is {table!r}, expected {{scale: strength}}")
        thresholds = []
        for scale in table:
            _check_scale(path, scale)
        for scale, strength in sorted(table.items()):
            if type(strength) not in (int, float) or not 0 <= strength <= 1:
                raise ConfigError(f"{path}: target {target}, scale {scale}: strength {strength!r} is not from 0 to 1")
            thresholds.append(strength)
        if thresholds != sorted(thresholds):
            raise ConfigError(
                f"{path}: target {target}: strengths must not fall as the scale grows, found {thresholds}"
            )
    return TableFile(content, network)


def _check_scale(path: str | Path, scale: object) -> None:
    if type(scale) not in (int, float) or not scale >= 1:
        raise ConfigError(f"{path}: scale {scale!r} is not a number of at least 1")


# ----------------------------------------------------------------------------------------------------------- measuring


def lr_images(folders: list[str], scale: float, limit: int, device: torch.device, title: str) -> Iterator[Tensor]:
    """LR images (1, 3, h, w) of the HR images of folders, made by bicubic interpolation, under a progress bar.

    Raises:
        ImageError: an empty folder, or an image that is unreadable or smaller than an LR pixel.
    """
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
    parser.add_argument("--weights", required=True, help="weights of an lm_* network")
    parser.add_argument(
        "--hr", required=True, nargs="+", help="folders of HR images; the paper takes DIV2K's training set"
    )
    parser.add_argument("--scales", type=float, nargs="+", default=list(TARGETS), help="target scales, beyond 4")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="largest squared error of a strength, in [-1, 1]"
    )
    parser.add_argument("--limit", type=int, default=0, help="only the first images of each folder, 0 takes all")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 keeps PyTorch's choice")
    parser.add_argument("--out", type=Path, required=True, help="YAML file")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    options = parser.parse_args(argv)
    if options.out.exists() and not options.overwrite:
        parser.error(f"--out {options.out} exists: choose another name or add --overwrite")
    if not all(1 < scale <= LARGEST_SCALE for scale in options.scales):
        parser.error(f"--scales {options.scales}: give numbers above 1, up to {LARGEST_SCALE}")
    if options.tolerance <= 0 or options.limit < 0:
        parser.error("--tolerance must be positive, --limit not negative")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    network = load_sr_for(options.weights, None).to(device).eval()
    if not isinstance(network, LMF):
        raise ConfigError(f"{options.weights}: holds {describe(network.spec)}; CMSR tables are made for lm_* networks")

    tables: Tables = {}
    for scale in sorted({plain_scale(scale) for scale in options.scales}):
        source = (options.hr, scale, options.limit, device)
        tables[scale] = build_table(network, lr_images(*source, f"x{scale:g}"), scale, tolerance=options.tolerance)
        shares = [
            rendered_share(network, lr, tuple(round(scale * side) for side in lr.shape[-2:]), {scale: tables[scale]})
            for lr in lr_images(*source, f"x{scale:g}, share")
        ]
        print(described(scale, tables[scale], shares), flush=True)
        save_tables(options.out, TableFile(tables, fingerprint(network)))  # what is there survives an interruption
    print(f"tables: {options.out}, for {describe(network.spec)}")
    return 0


if __name__ == "__main__":
    run(main)
