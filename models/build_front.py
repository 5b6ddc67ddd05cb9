"""Front ends from their specs: plain values, as checkpoints hold them and configurations are made into."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from models import build_sr
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.front_end import FrontEnd
from models.masker import Masker
from models.single_sr import ROLE, HRImages, SingleSR
from models.sr_network import SRNetwork
from utils.errors import UserError

Make = Callable[[str, dict], SRNetwork]


def fresh_network(role: str, spec: dict) -> SRNetwork:
    """SR network with fresh weights, whatever its role."""
    args = dict(spec["args"])
    return build_sr(spec["name"], args.pop("scale"), args)


def build_front(spec: dict, make: Make = fresh_network) -> FrontEnd:
    """Front end from its spec: {"name": "conditional", "args": {...}}, {"name": "hr"} or the spec of one SR network.

    Args:
        spec: of the whole front end.
        make: SR network from its role (sr_fast and sr_quality, or sr) and spec.

    Raises:
        UserError: unknown network or argument, networks of different scales, or a stem that cannot be shared.
    """
    if spec["name"] == "hr":
        return HRImages()
    if spec["name"] != "conditional":
        return SingleSR(make(ROLE, spec), spec["args"].get("upscale", 1))
    args = spec["args"]
    sr_fast = make("sr_fast", args["sr_fast"])
    masker = Masker(**args["masker"], stem=shared_stem(sr_fast) if args.get("shared_stem", False) else None)
    execution = Execution(halo=args["halo"], train_tiles=args.get("train_tiles", False))
    return ConditionalSR(masker, sr_fast, make("sr_quality", args["sr_quality"]), execution)


def shared_stem(sr_fast: SRNetwork) -> nn.Module:
    """The layers of SR_Fast that a masker may share: all before the last, at LR resolution.

    Raises:
        UserError: the network has no such layers.
    """
    if not sr_fast.capabilities.shares_stem:
        name = sr_fast.spec["name"]
        raise UserError(f"masker.shared_stem: {name} has no layers to share; take espcn or fsrcnn, or set it to false")
    return sr_fast.get_submodule("features")
