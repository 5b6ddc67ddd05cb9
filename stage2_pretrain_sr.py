"""Stage 2: pre-train SR_Fast, then SR_Quality, on LR-HR pairs, with PSNR/SSIM on benchmark folders.

    python stage2_pretrain_sr.py --config configs/stage2_sr_pretrain.yaml

Writes sr_fast_pretrained.pth and sr_quality_pretrained.pth into the run folder, and beside them sr_fast_best.pth and
sr_quality_best.pth, the weights with the highest mean PSNR of all validations. LR patches come from folders of LR
images, from bicubic interpolation, or from random degradations (data.degradation.kind realesrgan).
"""

from __future__ import annotations

from pathlib import Path

from configs.schema import NetworkConfig, OptimConfig, Stage2Config
from utils.cli import run
from utils.config import parse_config

OUTPUTS = {"sr_fast": "sr_fast_pretrained.pth", "sr_quality": "sr_quality_pretrained.pth"}


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage2Config, __doc__, argv)

    from training.processes import make_accelerator
    from training.result import finished_epochs, is_finished
    from training.run_start import start_run

    accelerator = make_accelerator(config.run)
    outputs = {role: Path(config.run.out) / name for role, name in OUTPUTS.items()}
    made = {f"optim_{role.removeprefix('sr_')}.epochs": finished_epochs(path) for role, path in outputs.items()}
    folder = start_run(config, accelerator.is_main_process, extends=made)
    accelerator.wait_for_everyone()
    for role, network_config, optim in (
        ("sr_fast", config.sr_fast, config.optim_fast),
        ("sr_quality", config.sr_quality, config.optim_quality),
    ):
        if is_finished(folder / OUTPUTS[role], optim.epochs):
            accelerator.print(f"{role}: already finished, {folder / OUTPUTS[role]}")
            continue
        train_network(role, network_config, optim, config, folder, accelerator)
    return 0


def train_network(
    role: str, network_config: NetworkConfig, optim: OptimConfig, config: Stage2Config, folder: Path, accelerator
) -> None:
    """Train one network and save it; one without parameters (bicubic) is only measured."""
    from training.result import in_words
    from training.sr_phases import train_in_phases
    from training.sr_training import build_network, trained_scales
    from training.sr_validation import SRValidation
    from utils.checkpoint import save_network

    # 1. Network
    network, main = build_network(role, network_config, config, accelerator.print), accelerator.is_main_process
    scales = trained_scales(network, config.data.val_scales) or [config.scale]

    # 2. Training
    epochs = optim.epochs
    if any(p.requires_grad for p in network.parameters()):
        epochs = train_in_phases(role, network, config, optim, folder, accelerator.print)
    network.to(accelerator.device).eval()

    # 3. Result
    if main:
        validation = SRValidation(role, network, config, optim, folder, accelerator.device, scales)
        metrics, spec = validation.measure(), network.spec
        meta = {"stage": 2, "role": role, "metrics": metrics, "epochs": epochs, "seed": config.run.seed}
        save_network(folder / OUTPUTS[role], "sr", spec["name"], spec["args"], network.state_dict(), meta)
        print(
            f"{role}: {spec['name']} -> {folder / OUTPUTS[role]}  {in_words(metrics) or 'no data.val to measure it on'}"
        )
    accelerator.wait_for_everyone()


if __name__ == "__main__":
    run(main)
