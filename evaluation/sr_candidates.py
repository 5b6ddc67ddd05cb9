"""The SR networks that `evaluate.py sr` compares, loaded from what its settings name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from configs.sr_schema import EvaluateSRConfig
from loading.cmsr_files import REMEDY, TableFile, load_tables, measured_on, owner_of
from models.arbitrary_scale import BicubicToSize, seeded
from prediction.sr_inference import load_sr_for
from utils.errors import UserError

BICUBIC = "bicubic"


@dataclass(frozen=True)
class Candidate:
    """One network, and how it is run.

    Args:
        weights: where its weights are.
        arch: what it is called in tables.
        network: on the device, in evaluation mode.
        cmsr: file of the CMSR tables that it renders by, None renders every pixel.
    """

    weights: str
    arch: str
    network: nn.Module
    cmsr: str | None = None

    @property
    def chain(self) -> dict[str, int | None]:
        """Passes that an image takes, and the seed of a stochastic network's noise."""
        can = self.network.capabilities
        return {"steps": can.steps, "seed": self.network.seed if can.stochastic else None}

    @property
    def label(self) -> str:
        """Tells the candidates of a comparison apart."""
        return self.weights if self.cmsr is None else f"{self.weights}, {self.cmsr}"


def as_list(value) -> list:
    """A single setting or several -> a list."""
    return list(value) if isinstance(value, list) else [value]


def load_candidates(config: EvaluateSRConfig, device: torch.device) -> dict[float, list[Candidate]]:
    """The networks that the settings name, by scale, on the device, in evaluation mode.

    A network of one scale is left out at the others. A network with CMSR tables comes twice at the scales that they
    are for: rendering every pixel, and by the tables.

    Raises:
        ValueError: no weights named, weights that fit none of the scales, or tables that fit none of the weights.
        CheckpointError: see `load_sr`.
        ConfigError: see `load_tables`.
    """
    names, scales = [str(name) for name in as_list(config.weights) if name], as_list(config.scale)
    if not names:
        raise UserError("no weights given; name a checkpoint with --weights, or several as [a.pth, b.pth]")
    if len(set(names)) < len(names):
        raise UserError(f"weights: one file is named twice in {names}")
    files = load_table_files(config)
    candidates: dict[float, list[Candidate]] = {scale: [] for scale in scales}
    used = dict.fromkeys(files, 0)
    for name in names:
        networks = read_networks(name, scales)
        first = next(iter(networks.values()))
        owned = [path for path, file in files.items() if measured_on(file, first)]
        if owned and max(scales) <= (beyond := first.capabilities.coarse.beyond):
            raise UserError(f"cmsr: renders beyond x{beyond:g} only; give a larger scale, or leave cmsr out")
        used |= {path: used[path] + 1 for path in owned}
        for scale, network in networks.items():
            network = seeded(network.to(device).eval(), config.seed)
            arch = BICUBIC if name == BICUBIC else network.spec["name"]
            candidates[scale].append(Candidate(name, arch, network))
            for path in owned:
                if scale > network.capabilities.coarse.beyond:
                    candidates[scale].append(Candidate(name, arch, network.with_tables(files[path].tables), path))
    for path, count in used.items():
        if count == 0:
            raise UserError(f"cmsr: {path} {owner_of(files[path])}, but none of the weights holds it; {REMEDY}")
        if count > 1 and files[path].network is None:
            raise UserError(f"cmsr: {path} does not say which of the networks it belongs to; compare one at a time")
    return candidates


def load_table_files(config: EvaluateSRConfig) -> dict[str, TableFile]:
    """CMSR tables that the settings name, by file.

    Raises:
        ValueError: tables that could not be used with the other settings.
        ConfigError: see `load_tables`.
    """
    paths = [] if config.cmsr is None else [str(path) for path in as_list(config.cmsr)]
    if paths and config.tile:
        raise UserError("cmsr and tile exclude each other: CMSR renders whole images; leave one of them out")
    return {path: load_tables(path) for path in paths}


def read_networks(name: str, scales: list[float]) -> dict[float, nn.Module]:
    """The network of a weight file at those of the scales that it has; a file can hold several.

    Raises:
        ValueError: it has none of them.
        CheckpointError: see `load_sr`.
    """
    if name == BICUBIC:
        return dict.fromkeys(scales, BicubicToSize())
    found, refusals = {}, []
    for scale in scales:
        try:
            found[scale] = load_sr_for(name, scale)
        except ValueError as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    return found
