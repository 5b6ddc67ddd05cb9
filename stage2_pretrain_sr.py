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


def train_network(
    role: str, network_config: NetworkConfig, optim: OptimConfig, config: Stage2Config, folder: Path, accelerator
) -> None:
    """Train one network and save it."""
    import torch

    from evaluation.sr_eval import benchmark, validation_sets
    from loading.load import build_or_load_sr
    from models.arbitrary_scale import takes_size
    from training.best_weights import BestWeights
    from training.gradient_checkpointing import checkpoint_blocks
    from training.sr_training import sr_objective, sr_training_data
    from training.trainer import Trainer
    from utils.checkpoint import save_network
    from utils.logger import MetricsLog
    from utils.optimizer_utils import decay_groups

    # 1. Network; seeded here, so that its first weights do not depend on what ran before
    torch.manual_seed(config.run.seed)
    network = build_or_load_sr(network_config, config.scale)
    if config.gradient_checkpointing:
        accelerator.print(f"{role}: {checkpoint_blocks(network)} blocks are recomputed in the backward pass")
    arbitrary, data = takes_size(network), config.data
    if data.scales and not arbitrary:
        accelerator.print(f"{role}: {network_config.name} has one scale, so data.scales is left aside for it")

    # 2. Data
    training = sr_training_data(config, optim, folder, accelerator.num_processes, arbitrary)
    for note in training.dataset.notes():
        accelerator.print(note)
    sets = validation_sets(data.val, (arbitrary and data.val_scales) or [config.scale], data.max_pixels)
    best = BestWeights(folder / f"{role}_best.pth", network, {"stage": 2, "role": role, "seed": config.run.seed})

    def validate(epoch: int, step: int) -> dict:
        last = epoch + 1 == optim.epochs
        if not (last or (epoch + 1) % config.val_every == 0):
            return {}
        metrics = benchmark(network, sets, accelerator.device)
        best.offer(metrics, epoch, step)
        return metrics

    # 3. Training; a network without parameters (bicubic) is only measured
    main = accelerator.is_main_process
    if any(p.requires_grad for p in network.parameters()):
        log = MetricsLog(folder / role, main=main)
        trainer = Trainer(
            f"stage 2 {role}",
            sr_objective(network, config, accelerator.device),
            decay_groups(role, network.parameters(), optim.lr, optim.weight_decay),
            training,
            optim,
            config.run,
            folder / role,
            log,
            accelerator,
            validate,
        )
        log.resume_from(trainer.restore())
        trainer.fit()
    network.to(accelerator.device).eval()

    # 4. Result
    if main:
        metrics = benchmark(network, sets, accelerator.device)
        meta = {"stage": 2, "role": role, "metrics": metrics, "epochs": optim.epochs, "seed": config.run.seed}
        spec = network.spec
        save_network(folder / OUTPUTS[role], "sr", spec["name"], spec["args"], network.state_dict(), meta)
        print(f"{role}: {spec['name']} -> {folder / OUTPUTS[role]}  {metrics}")
    accelerator.wait_for_everyone()


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage2Config, __doc__, argv)

    from training.trainer import make_accelerator
    from utils.logger import open_run

    accelerator = make_accelerator(config.run)
    folder = open_run(config, main=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    for role, network_config, optim in (
        ("sr_fast", config.sr_fast, config.optim_fast),
        ("sr_quality", config.sr_quality, config.optim_quality),
    ):
        if (folder / OUTPUTS[role]).exists():
            accelerator.print(f"{role}: already finished, {folder / OUTPUTS[role]}")
            continue
        # A fresh one per network: a gradient scaler must not carry over what a resumed run would not know.
        train_network(role, network_config, optim, config, folder, make_accelerator(config.run))
    return 0


if __name__ == "__main__":
    run(main)
