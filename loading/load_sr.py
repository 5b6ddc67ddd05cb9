"""SR networks from weight files of any origin; every refusal names the file, what is wrong, and the remedy."""

from __future__ import annotations

import inspect
from pathlib import Path

from configs.schema import NetworkConfig
from loading.build_network import build_network
from loading.checkpoints import load_front, load_stage2
from loading.published_weights import check_network_scale, load_community_sr, spec_text
from loading.shipped_weights import SHIPPED, check_shipped, shipped_specs
from loading.state_dict_file import is_community_file
from models import SR_NETWORKS
from models.sr_network import SRNetwork
from utils.checkpoint import CheckpointError, load_network
from utils.errors import UserError


def load_sr(path: str | Path, scale: float | None = None) -> SRNetwork:
    """SR network of stage 2 or of a published weight file (says what it holds), on the CPU, in evaluation mode.

    Args:
        path: .pth of stage 2, or of a stage 3 with a single SR network in front of the detector, or weights published
            by others (.pth, .pt, .ckpt, .safetensors), see loading/published_weights.py.
        scale: the one that is wanted; published files of several scales need it.

    Raises:
        CheckpointError: missing, damaged, of no known architecture, or with keys missing or unknown.
        ValueError: it is for another scale.
    """
    check_shipped(path)
    if is_community_file(path):
        network, found = load_community_sr(path, scale)
        print(f"{path}: {found}")
        return network
    if load_network(path)["kind"] == "system":
        front = load_front(path)
        if front.spec["name"] not in SR_NETWORKS:
            raise CheckpointError(
                f"{path}: its front end is no single SR network; for a whole front end there is `start`"
            )
        (network,) = front.networks.values()
    else:
        network = load_stage2(path)
    check_network_scale(path, network, scale)
    return network


def build_or_load_sr(config: NetworkConfig, scale: int) -> SRNetwork:
    """SR network as configured: with fresh weights, or with those of a checkpoint.

    A stage-2 checkpoint must hold the configured network. A weight file published by others says by its keys which
    network it holds; that one is taken, and said so where the configuration names another. `init` names the same
    network for another scale, of which all that fits is taken over; `weights: shipped` are those of the project.

    Raises:
        ValueError: unknown network or argument, the checkpoint holds another network or scale, or both are named.
        CheckpointError: see `load_sr`.
    """
    network = build_network(config.name, scale, config.args)
    if config.init is not None:
        if config.weights is not None:
            raise UserError(f"{config.name}: weights and init are both given; weights already sets every tensor")
        return _started_from(config.init, network)
    if config.weights is None:
        return network
    path = shipped_file(network) if config.weights == SHIPPED else config.weights
    stored = load_sr(path, scale)
    if network.capabilities.takes_size and same_but_scale(stored.spec, network.spec):
        network.load_state_dict(stored.state_dict())
        return network.eval()
    if with_defaults(stored.spec) != with_defaults(network.spec):
        if is_community_file(config.weights):
            print(f"{config.weights}: taken as it is; the configuration's {spec_text(network.spec)} does not apply")
            return stored
        raise UserError(
            f"{config.weights}: holds {spec_text(stored.spec)}, but the configuration asks for "
            f"{spec_text(network.spec)}; make name and args agree with the checkpoint, or train stage 2 with them"
        )
    return stored


def with_defaults(spec: dict) -> dict:
    """Spec of an SR network with the arguments that were left at their defaults written out."""
    parameters = inspect.signature(SR_NETWORKS[spec["name"]]).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {"name": spec["name"], "args": defaults | spec["args"]}


def shipped_file(network: SRNetwork) -> Path:
    """The weight file of this very network that comes with the project; one for any scale fits every scale.

    Raises:
        ValueError: there is none; the message lists what there is.
    """
    shipped = shipped_specs()
    for path, held in shipped.items():
        alike = network.capabilities.takes_size and same_but_scale(held, network.spec)
        if alike or with_defaults(held) == with_defaults(network.spec):
            return path
    raise UserError(
        f"weights: {SHIPPED}: there are none for {spec_text(network.spec)}; shipped are "
        f"{', '.join(spec_text(held) for held in shipped.values())}. Train stage 2 and name its checkpoint"
    )


def _started_from(path: str | Path, network: SRNetwork) -> SRNetwork:
    """The network with those tensors of a checkpoint that agree in name and shape; prints how many."""
    stored = load_sr(path)
    if not same_but_scale(stored.spec, network.spec):
        raise UserError(
            f"{path}: init needs {spec_text(network.spec)} at any scale, but this holds {spec_text(stored.spec)};"
            " make name and args agree with the checkpoint"
        )
    own = network.state_dict()
    fits = {key: x for key, x in stored.state_dict().items() if key in own and own[key].shape == x.shape}
    network.load_state_dict(fits, strict=False)
    fresh = f"; fresh: {', '.join(sorted(own.keys() - fits.keys()))}" if len(fits) < len(own) else ""
    print(f"{path}: {len(fits)} of {len(own)} tensors taken over{fresh}")
    return network


def same_but_scale(spec: dict, other: dict) -> bool:
    """Whether two specs are of one network, be it for different scales."""
    specs = with_defaults(spec), with_defaults(other)
    return specs[0]["name"] == specs[1]["name"] and all(
        specs[0]["args"][key] == value for key, value in specs[1]["args"].items() if key != "scale"
    )
