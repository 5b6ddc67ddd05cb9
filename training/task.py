"""What the Trainer has to know about what it trains: the protocol of a training task.

A task is one object in one file of `training/tasks/`. It holds the networks and says how they learn:

    which parameters learn, how fast, by which optimiser     `optimizers`
    whose turn a step is                                     `turns`
    what is minimised                                        `losses`
    what a checkpoint keeps, and what is averaged            `keeps`, `averages`
    numbers that a later phase of the training needs         `numbers`

Only `optimizers` and `losses` have to be written; the defaults of the rest are those of one network and one optimiser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from configs.schema import OptimConfig

MAIN = "main"


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Args:
        step: the step about to be made, from 0.
        total_steps: of how many.
        turn: name of the optimiser whose turn it is.
    """

    step: int
    total_steps: int
    turn: str = MAIN


@dataclass(frozen=True)
class OptimizerSpec:
    """One AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) of a task.

    Args:
        groups: parameter groups with "name", "params", "lr" (the highest of the schedule) and "weight_decay"; further
            keys such as "betas" are AdamW's.
        settings: schedule, warm-up and clip_norm; each optimiser may have its own.
    """

    groups: list[dict]
    settings: OptimConfig


class Task(nn.Module):
    """Base of the training tasks. A module, so that the processes of a distributed run share its gradients.

    Networks that only judge (a teacher, a perceptual distance) do not belong into its state: keep them in a tuple or in
    a plain object. What a loss draws at random must be a pure function of (seed, epoch, sample index) or of the step:
    then a resumed run goes on bit for bit.

    Attributes:
        on_bar: loss terms that the progress bar shows beside the total.
    """

    on_bar: tuple[str, ...] = ()

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        """Optimisers by name; asked for once, before training. One is usually called `MAIN`.

        Parameters without `requires_grad` and such that no optimiser names stay as they are.

        Args:
            optim: settings of the run.
        """
        raise NotImplementedError

    def turns(self, step: int) -> tuple[str, ...]:
        """Which optimisers make an update in this step, one after the other, on the same batch; a pure function.

        In a turn the parameters of the other optimisers get no gradient, though gradients flow through them. By default
        there is one turn, of `MAIN`. A GAN answers ("generator", "discriminator"), or one of them in every second step.
        """
        return (MAIN,)

    def losses(self, batch: Any, progress: Progress) -> dict[str, Tensor]:
        """Loss terms of a micro-batch, scalars: "total" carries the gradient, the others are for the log.

        Args:
            batch: as the training data collate it, on the device; has `files`. All turns of a step get the same object.
            progress: step, and whose turn it is.
        """
        raise NotImplementedError

    def forward(self, batch: Any, progress: Progress) -> dict[str, Tensor]:
        """`losses`, under the name that DistributedDataParallel wraps."""
        return self.losses(batch, progress)

    def start_epoch(self, epoch: int) -> None:
        """Called at the start of an epoch (from 0), also of a resumed one, for state that depends on the epoch."""

    def keeps(self, name: str) -> bool:
        """Whether this entry of the state dict goes into the checkpoints; a frozen base network need not."""
        return True

    def averages(self, name: str) -> bool:
        """Whether this entry, which is kept, is averaged over the steps and used averaged in the end (optim.ema)."""
        return True

    def numbers(self, batches: Iterable[Any]) -> dict[str, Any]:
        """What a later phase needs of this one, such as a latent scale factor; asked for after the last step.

        The averaged weights are in place, nothing needs a gradient. The numbers are in the last checkpoint, so that a
        resumed run hands on the same. The later phase best takes them as buffers: then its checkpoints hold them too.

        Args:
            batches: training batches of one further epoch on the device, whatever the number of processes; take as
                many as are needed.

        Returns:
            Plain numbers, strings, lists, dicts of them, and CPU tensors.
        """
        return {}


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """What is computed within gives these parameters no gradient, but passes it on; BatchNorm still follows."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
