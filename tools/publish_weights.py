"""A stage-2 checkpoint as published weights: NAME.safetensors, which says how to build itself, and its card NAME.md.

    python -m tools.publish_weights runs/stage2/sr_quality_best.pth --name edsr_8x32_x4

The card is written from the run folder (config.yaml, environment.json, TensorBoard's times). Its PSNR and SSIM are
measured anew, from the published file itself, as `evaluate.py sr` does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from configs.schema import Stage2Config
from configs.sr_schema import EvaluateSRConfig
from utils.atomic_file import replace_file, replace_text
from utils.config import load_config
from utils.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

AGREE = 0.02  # dB between the checkpoint's own validation and the published file


def to_safetensors(network: nn.Module) -> bytes:
    """Weights with the header {"name", "args": JSON} that `load_community_sr` builds the network from."""
    from safetensors.torch import save

    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    return save(weights, {"name": network.spec["name"], "args": json.dumps(network.spec["args"])})


def measured_rows(
    file: Path, network: nn.Module, config: Stage2Config, folders: list[str], device: torch.device
) -> list:
    """Rows of `evaluate.py sr` for a weight file, without timing.

    Args:
        file: published weights.
        network: what they hold; arbitrary-scale ones are measured at every factor of data.val_scales.
        config: settings of the run that trained it.
        folders: validation sets.
        device: where to compute.

    Raises:
        ImageError: see `list_benchmarks`.
    """
    from evaluation.sr_benchmarks import list_benchmarks
    from evaluation.sr_candidates import load_candidates
    from evaluation.sr_evaluation import SREvaluation

    arbitrary = network.capabilities.takes_size
    scales = [float(scale) for scale in (arbitrary and config.data.val_scales) or [config.scale]]
    settings = EvaluateSRConfig(
        weights=str(file), hr=list(folders), scale=scales, timing_runs=0, max_pixels=config.data.max_pixels
    )
    benchmarks = list_benchmarks(settings)
    evaluation = SREvaluation(load_candidates(settings, device), settings, device)
    return [row for benchmark in benchmarks for row in evaluation.rows(benchmark)]


def check_agreement(checkpoint: Path, validated: dict[str, float], rows: list[dict]) -> None:
    """Raises ValueError where the published file does not reach what the checkpoint says of itself.

    Sets that the run was not validated on have nothing to be held to.
    """
    for row in rows:
        names = (f"psnr/{row['dataset']}", f"psnr/{row['dataset']}_x{row['scale']:g}")
        for stored in (validated[name] for name in names if name in validated):
            if not abs(stored - row["psnr_y"]) <= AGREE:
                raise UserError(
                    f"{checkpoint}: its validation gave {stored:.3f} dB on {row['dataset']}, its weights now give"
                    f" {row['psnr_y']:.3f} dB; name the folders that the run was validated on with --hr"
                )


def training_seconds(folder: Path) -> float:
    """Time between the first and the last log line of a network's TensorBoard files, 0 where there are none.

    A resumed run has several files, as one of several phases has; the pauses between them do not count.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    spans = []
    for file in sorted(folder.rglob("tensorboard/events.out.tfevents.*")):
        times = [event.wall_time for event in EventFileLoader(str(file)).Load()]
        spans.append(max(times) - min(times) if times else 0.0)
    return sum(spans)


def read_run(folder: Path) -> tuple[Stage2Config, dict]:
    """Settings and environment of a run folder; {} where the environment is missing.

    Raises:
        FileNotFoundError: no config.yaml.
        ConfigError: a config.yaml that is none of stage 2.
    """
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder / 'config.yaml'} does not exist; name the run folder with --run")
    environment = folder / "environment.json"
    made = json.loads(environment.read_text(encoding="utf-8")) if environment.is_file() else {}
    return load_config(Stage2Config, folder / "config.yaml"), made


def write_sums(out: Path) -> None:
    """The checksums of all weight files in a folder, as `sha256sum` writes and checks them."""
    from loading.shipped_weights import SUMS

    files = sorted(out.glob("*.safetensors"))
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    replace_text(out / SUMS, "".join(lines))


def publish(checkpoint: Path, name: str, out: Path, run: Path, hr: list[str], device: torch.device) -> tuple[Path, str]:
    """Write OUT/NAME.safetensors and OUT/NAME.md, and bring OUT/SHA256SUMS up to date.

    Args:
        checkpoint: sr_fast_*.pth or sr_quality_*.pth of stage 2.
        name: of the two files.
        out: their folder.
        run: run folder of stage 2.
        hr: validation sets; empty takes those of the run.
        device: where the PSNR is measured.

    Returns:
        The weight file, and the card's text.

    Raises:
        CheckpointError: a file that stage 2 did not write, or a damaged one.
        ValueError: no validation set, or figures that are not those of the checkpoint.
    """
    from loading.load_sr import load_sr
    from tools.weight_card import ROLES, card_text
    from utils.checkpoint import CheckpointError, load_network

    meta = load_network(checkpoint, "sr")["meta"]
    if meta.get("role") not in ROLES:
        raise CheckpointError(f"{checkpoint}: does not say which network of stage 2 it is; give a file of stage 2")
    network = load_sr(checkpoint)
    if not any(True for _ in network.parameters()):
        raise UserError(f"{checkpoint}: {network.spec['name']} has no weights to publish")
    config, made = read_run(run)
    folders = hr or config.data.val
    if not folders:
        raise UserError(f"{run / 'config.yaml'}: data.val is empty; name folders of HR images with --hr")
    content = to_safetensors(network)
    with tempfile.TemporaryDirectory() as trial:  # measured before anything appears in `out`
        file = Path(trial) / f"{name}.safetensors"
        file.write_bytes(content)
        rows = measured_rows(file, network, config, folders, device)
    check_agreement(checkpoint, meta["metrics"], rows)
    card = card_text(name, network, rows, meta, config, made, training_seconds(run / meta["role"]))
    replace_file(out / f"{name}.safetensors", lambda stream: stream.write(content))
    replace_text(out / f"{name}.md", card)
    write_sums(out)
    return out / f"{name}.safetensors", card


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="sr_*_best.pth or sr_*_pretrained.pth of stage 2")
    parser.add_argument("--name", required=True, help="of the two files, without ending")
    parser.add_argument("--out", type=Path, default=Path("weights"), help="their folder (default: weights)")
    parser.add_argument("--run", type=Path, help="run folder of stage 2 (default: the checkpoint's folder)")
    parser.add_argument("--hr", nargs="+", default=[], help="validation sets (default: data.val of the run)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 keeps PyTorch's choice")
    parser.add_argument("--overwrite", action="store_true", help="replace files of this name")
    options = parser.parse_args(argv)
    if not options.name or Path(options.name).name != options.name or options.name.endswith((".safetensors", ".md")):
        parser.error(f"--name {options.name!r} must be a plain name without ending, such as edsr_8x32_x4")
    present = [file for ending in (".safetensors", ".md") if (file := options.out / (options.name + ending)).exists()]
    if present and not options.overwrite:
        parser.error(f"{present[0]} exists: choose another --name or add --overwrite")

    from utils.device import choose_device, set_threads

    set_threads(options.threads)
    run = options.run or options.checkpoint.parent
    device = choose_device(options.device)
    file, card = publish(options.checkpoint, options.name, options.out, run, options.hr, device)
    print(f"{card}\npublished: {file}, with its card beside it")
    return 0


if __name__ == "__main__":
    from utils.cli import run

    run(main)
