"""Micro-batches of LR-HR patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.data import default_collate


@dataclass(frozen=True)
class SRBatch:
    """Training patches; all have one scale.

    Args:
        lr: (B, 3, p, p), uint8, or float32 in [0, 1] after `to`; None where LR is still to be made on the device.
        hr: (B, 3, round(s*p), round(s*p)), the same kind.
        files: HR file of each row.
        keys: (epoch, index) of each row.
        draws: random numbers of each row for making LR, see data/real_degradation.py.
    """

    lr: Tensor | None
    hr: Tensor
    files: list[str]
    keys: list[tuple[int, int]] = field(default_factory=list)
    draws: dict[str, Tensor] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        return self.keys[0][0]

    @property
    def indices(self) -> list[int]:
        return [index for _, index in self.keys]

    def to(self, device: torch.device | str) -> SRBatch:
        """Move to a device and convert uint8 to float32 in [0, 1] there; 64-bit draws stay on the CPU."""

        def move(x: Tensor | None) -> Tensor | None:
            if x is None or x.dtype == torch.float64:
                return x
            x = x.to(device, non_blocking=True)
            return x.float().div_(255) if x.dtype == torch.uint8 else x

        draws = {name: move(x) for name, x in self.draws.items()}
        return replace(self, lr=move(self.lr), hr=move(self.hr), draws=draws)

    def pin_memory(self) -> SRBatch:
        """Called by the DataLoader to make copies to CUDA faster."""
        lr = None if self.lr is None else self.lr.pin_memory()
        draws = {name: x.pin_memory() for name, x in self.draws.items()}
        return replace(self, lr=lr, hr=self.hr.pin_memory(), draws=draws)


def collate_pairs(samples: Sequence[dict]) -> SRBatch:
    """Stack samples of `SRPairDataset`."""
    lr, hr = (None if samples[0][key] is None else torch.stack([s[key] for s in samples]) for key in ("lr", "hr"))
    draws = default_collate([sample["draws"] for sample in samples]) if samples[0]["draws"] else {}
    return SRBatch(lr, hr, [sample["file"] for sample in samples], [sample["key"] for sample in samples], draws)
