"""Device, precision and processes of a training run, and how a batch is dealt out to the processes."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from configs.schema import OptimConfig, RunConfig
from training.host_memory import keep_freed_memory
from utils.device import check_precision, choose_device, set_threads
from utils.errors import UserError


def micro_batches(optim: OptimConfig, processes: int) -> tuple[int, int]:
    """(images per forward pass, forward passes per step and process).

    Raises:
        UserError: batch is no multiple of micro_batch x processes.
    """
    micro = optim.micro_batch or optim.batch // processes
    if micro < 1 or optim.batch % (micro * processes):
        raise UserError(
            f"optim.batch={optim.batch} must be a multiple of optim.micro_batch={micro} x {processes} processes"
        )
    return micro, optim.batch // (micro * processes)


def repeat_exactly() -> None:
    """Let CUDA use algorithms that give the same bits each time, from here on; to be called before CUDA is used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def make_accelerator(run: RunConfig, some_get_no_gradient: bool = False) -> Accelerator:
    """Device, precision and processes (`accelerate launch` or `torchrun` start several) as one object.

    Args:
        run: device, precision, threads, seed.
        some_get_no_gradient: there are steps, or turns, in which some of the weights get no gradient; the processes
            then look which ones.

    Raises:
        UserError: CUDA was asked for and is not there, or fp16 without CUDA.
    """
    device = choose_device(run.device, "run.device")
    check_precision(run.precision, device, "run.precision")
    set_threads(run.threads)
    cpu = device.type == "cpu"
    if run.deterministic and not cpu:
        repeat_exactly()
    if cpu:
        keep_freed_memory()
    torch.manual_seed(run.seed)
    precision = {"fp32": "no"}.get(run.precision, run.precision)
    # The other processes wait while the main one validates.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    unused = DistributedDataParallelKwargs(find_unused_parameters=some_get_no_gradient)
    return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[patience, unused])
