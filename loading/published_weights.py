"""SR networks from published weight files: finds out what a file holds and builds the network with its weights.

Recognised by their keys are EDSR, CARN, CARN-M, RCAN, RDN, IMDN, RFDN, SPAN and SwinIR (key_maps.py), and networks for
any scale (lmf_official.py, ldcsr_official.py); what is none of them goes to spandrel, which knows many more. What the
keys leave open (whether the network was trained on [0, 1] or [0, 255], with or without DIV2K's mean colour) is decided
by super-resolving a drawn image: the published reading is taken unless another restores it clearly better. Networks
trained on [0, 255] get the factor folded into their first and last layer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from loading.bounded_build import at_most
from loading.build_network import build_network
from loading.key_maps import FAMILIES, Match, UnusableWeights
from loading.ldcsr_official import read_ldcsr
from loading.lmf_official import LAYOUT, READS, read_official
from loading.state_dict_file import StateDictFile, own_spec, read_state_dict
from models.capabilities import WHOLE_SCALES
from models.networks.spandrel_any import spandrel_arguments
from models.sr_network import SRNetwork
from utils.checkpoint import CheckpointError
from utils.errors import UserError
from utils.resize import resize

PROBE_SIDE = 72  # HR pixels, divisible by every scale
RESTORED = 20.0  # dB on the drawn image above which a reading makes sense at all
CLEARLY = 0.3  # dB by which another reading must beat the published one

Found = TypeVar("Found")


def load_community_sr(path: str | Path, scale: float | None = None) -> tuple[SRNetwork, str]:
    """SR network from a published weight file, on the CPU, in evaluation mode.

    Args:
        path: .pth, .pt, .ckpt or .safetensors.
        scale: the one that is wanted; needed where a file holds several (CARN). A network for any scale takes any,
            and one of its own where none is given.

    Returns:
        The network, and what was found, such as "carn_m(scale=4, ...), authors' names, value range 1".

    Raises:
        CheckpointError: missing, damaged, of no known architecture, or with keys missing or unknown.
        ValueError: the file is for another scale.
    """
    file = read_state_dict(path)
    with at_most(path, file.weights):
        return _recognised(path, file, scale)


def _recognised(path: str | Path, file: StateDictFile, scale: float | None) -> tuple[SRNetwork, str]:
    """See `load_community_sr`."""
    wrapping = f", {file.wrapping}" if file.wrapping else ""
    spec = own_spec(file.metadata)
    if spec is not None:
        name, args = spec
        network = _built(path, name, args.get("scale"), args)
        check_network_scale(path, network, scale)
        return filled(path, network, file.weights), f"{spec_text(network.spec)}, written by this project"
    network = read_official(path, file, scale)
    if network is not None:
        return network, f"{spec_text(network.spec)}, {LAYOUT}{wrapping}"
    found = _known(path, lambda: read_ldcsr(file.weights, scale))
    if found is not None:
        network, weights, stage = found
        return filled(path, network, weights), f"{spec_text(network.spec)}, LDCSR authors' names, {stage}{wrapping}"
    match = _known(
        path, lambda: next((found for family in FAMILIES if (found := family(dict(file.weights))) is not None), None)
    )
    if match is None:
        network = _from_spandrel(path, file, scale)
        return network, f"{spec_text(network.spec)}, recognised by spandrel{wrapping}"
    scale = _chosen_scale(path, match, scale)
    weights = {key: value for key, value in match.weights.items() if not _of_other_scale(key, match, scale)}
    network, value_range = _best_reading(path, match, weights, scale)
    return network, f"{spec_text(network.spec)}, {match.layout}{wrapping}, value range {value_range}"


def check_network_scale(path: str | Path, network: SRNetwork, wanted: float | None) -> None:
    """`check_scale` of a network; one for any scale fits every wish, and None is no wish."""
    if wanted is not None and not network.capabilities.takes_size:
        check_scale(path, network.scale, wanted)


def check_scale(path: str | Path, stored: int, wanted: int) -> None:
    """Raises ValueError where a checkpoint is for another super-resolution factor than the configuration."""
    if stored != wanted:
        remedy = f"train the stages for x{wanted}" if wanted in WHOLE_SCALES else "take a network for any scale"
        raise UserError(
            f"{path}: wrong scale checkpoint, it is for x{stored}, but the configuration's scale is {wanted}; "
            f"set the scale to {stored}, or {remedy}"
        )


def spec_text(spec: dict) -> str:
    """`edsr(scale=4, n_blocks=8)`."""
    return f"{spec['name']}({', '.join(f'{key}={value}' for key, value in spec['args'].items())})"


def filled(path: str | Path, network: SRNetwork, weights: dict[str, Tensor]) -> SRNetwork:
    """The network with these weights, in evaluation mode.

    Raises:
        CheckpointError: keys are missing, unknown or of another shape, or values are not finite.
    """
    needed = network.state_dict()
    faults = {
        "missing": [key for key in needed if key not in weights],
        "unknown": [key for key in weights if key not in needed],
        "of another shape": [k for k in needed if k in weights and needed[k].shape != weights[k].shape],
    }
    if any(faults.values()):
        listed = "; ".join(
            f"{len(keys)} {fault}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
            for fault, keys in faults.items()
            if keys
        )
        raise CheckpointError(
            f"{path}: looks like {spec_text(network.spec)}, but its keys do not agree: {listed}. Use a complete copy; "
            "a changed architecture has to be added to models.SR_NETWORKS first"
        )
    check_finite(path, weights)
    try:
        network.load_state_dict(weights)
    except UserError as error:  # numbers that a network of its kind cannot have
        raise CheckpointError(f"{path}: {error}") from error
    return network.eval()


def check_finite(path: str | Path, weights: dict[str, Tensor]) -> None:
    """Raises CheckpointError where a weight is NaN or infinite: such a network gives black images, not errors."""
    broken = [key for key, value in weights.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{path}: {len(broken)} of {len(weights)} tensors hold NaN or infinite values, such as {broken[0]};"
            " use weights from before the training diverged"
        )


# ------------------------------------------------------------------- inner parts


def _known(path: str | Path, recognise: Callable[[], Found]) -> Found:
    """What a key map finds; its stumbling over a file that is not whole becomes an error that names the file."""
    try:
        return recognise()
    except (UnusableWeights, UserError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ArithmeticError, LookupError, RuntimeError) as error:  # keys or axes that every copy of a network has
        raise CheckpointError(
            f"{path}: has keys of a known network, but others are missing or have other axes"
            f" ({type(error).__name__}: {error}); use another copy of it"
        ) from error


def _built(path: str | Path, name: str, scale: int | None, args: dict) -> SRNetwork:
    try:
        return build_network(name, scale, args)
    except (ValueError, ArithmeticError, MemoryError, RuntimeError) as error:  # PyTorch's own: too large a tensor
        raise CheckpointError(f"{path}: describes a network that cannot be built here: {error}") from error


def _chosen_scale(path: str | Path, match: Match, wanted: int | None) -> int:
    """The wanted one of the scales in the file, or its only one."""
    if wanted in match.scales or (wanted is None and len(match.scales) == 1):
        scale = match.scales[0] if wanted is None else wanted
        if scale not in WHOLE_SCALES:
            raise CheckpointError(
                f"{path}: holds {match.name} for x{scale}; use weights for one of "
                + ", ".join(f"x{s}" for s in WHOLE_SCALES)
            )
        return scale
    held = ", ".join(f"x{scale}" for scale in match.scales)
    if wanted is None:
        raise CheckpointError(f"{path}: holds {match.name} for {held}; say which scale is wanted")
    raise UserError(
        f"{path}: wrong scale checkpoint, it is for {held}, but the configuration's scale is {wanted}; "
        f"set the scale to {match.scales[0]}, or take weights for x{wanted}"
    )


def _of_other_scale(key: str, match: Match, scale: int) -> bool:
    return any(key.startswith(f"upsample.up{other}.") for other in match.scales if other != scale)


def readable_architectures() -> str:
    """Names of all networks that a published weight file may hold."""
    from spandrel import MAIN_REGISTRY

    theirs = [support.architecture.name for support in MAIN_REGISTRY.architectures()]
    own = ["EDSR", "CARN", "CARN-M", "RCAN", "RDN", "IMDN", "RFDN", "SPAN", "SwinIR", *READS.split(", "), "LDCSR"]
    return ", ".join(dict.fromkeys([*own, *sorted(theirs, key=str.casefold)]))


def _from_spandrel(path: str | Path, file: StateDictFile, scale: int | None) -> SRNetwork:
    """A network that only spandrel knows."""
    from spandrel import ImageModelDescriptor, ModelLoader

    layouts = [file.weights]
    if file.prefix.endswith("model."):  # a wrapping elsewhere, but part of the names in ESRGAN's first layout
        layouts.append({f"model.{key}": value for key, value in file.weights.items()})
    found, failure = None, None
    for weights in layouts:
        try:
            found = ModelLoader().load_from_state_dict(dict(weights))
            break
        except Exception as error:  # its detection takes keys for granted and fails in any way
            failure = error
    if found is None:
        some = ", ".join(list(file.weights)[:4])
        raise CheckpointError(
            f"{path}: no architecture that can be read here; its {len(file.weights)} keys are {some}, ... Can be read: "
            + readable_architectures()
        ) from failure
    kind = found.architecture.name
    if not isinstance(found, ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        raise CheckpointError(f"{path}: holds {kind}, which does not map an RGB image to another; use SR weights")
    if found.scale not in WHOLE_SCALES:
        raise CheckpointError(f"{path}: holds {kind} for x{found.scale}; use weights for x2, x3 or x4")
    check_scale(path, found.scale, found.scale if scale is None else scale)
    sizes = found.size_requirements
    args = spandrel_arguments(found.model) | {"minimum": max(1, sizes.minimum), "multiple": sizes.multiple_of}
    network = _built(path, "spandrel", found.scale, args)
    return filled(path, network, {f"net.{key}": value for key, value in found.model.state_dict().items()})


def _best_reading(path: str | Path, match: Match, weights: dict[str, Tensor], scale: int) -> tuple[SRNetwork, int]:
    """Network and value range by the convention that the keys tell, or that restores a drawn image best."""
    best, best_range, best_psnr = None, 0, 0.0
    for value_range, more in match.conventions:
        network = _built(path, match.name, scale, match.args | more)
        filled(path, network, _in_unit_range(match, weights, value_range))
        if len(match.conventions) == 1:
            return network, value_range
        psnr = _probe_psnr(network)
        if best is None or (psnr > RESTORED and psnr > max(best_psnr, 0.0) + CLEARLY):
            best, best_range, best_psnr = network, value_range, psnr
    return best, best_range


def _in_unit_range(match: Match, weights: dict[str, Tensor], value_range: int) -> dict[str, Tensor]:
    """Weights for images in [0, 1], from those for [0, value_range]."""
    scaled = {key: weights[key] * value_range for key in match.first if key in weights}
    scaled |= {key: weights[key] / value_range for key in match.last if key in weights}
    return weights | scaled


def drawn_image() -> np.ndarray:
    """Discs and bars in several colours on a gradient, float32 (PROBE_SIDE, PROBE_SIDE, 3) in [0, 1], antialiased."""
    fine = 4
    y, x = np.mgrid[0 : PROBE_SIDE * fine, 0 : PROBE_SIDE * fine] / (PROBE_SIDE * fine)
    image = np.stack([0.25 + 0.6 * x, 0.3 + 0.4 * y, 0.55 - 0.3 * x * y], axis=-1)
    discs = ((0.3, 0.3, 0.2, (0.85, 0.3, 0.2)), (0.65, 0.55, 0.25, (0.25, 0.4, 0.75)), (0.7, 0.2, 0.1, (0.9, 0.9, 0.5)))
    for row, column, radius, colour in discs:
        image[(y - row) ** 2 + (x - column) ** 2 < radius**2] = colour
    image[np.abs(y - 0.4 * x - 0.5) < 0.03] = (0.2, 0.25, 0.2)
    image[(np.abs(x - 0.85) < 0.06) & (y > 0.3) & (y < 0.9)] = (0.95, 0.85, 0.9)
    return image.reshape(PROBE_SIDE, fine, PROBE_SIDE, fine, 3).mean((1, 3)).astype(np.float32)


@torch.no_grad()
def _probe_psnr(network: SRNetwork) -> float:
    """dB by which the network restores the drawn image from its bicubic reduction, without a border of 8 pixels."""
    hr = drawn_image()
    side = PROBE_SIDE // network.scale
    lr = torch.from_numpy(resize(hr, side, side)).permute(2, 0, 1)[None]
    sr = network(lr)[0].permute(1, 2, 0).clamp(0, 1).numpy()
    error = float(np.mean((sr - hr)[8:-8, 8:-8].astype(np.float64) ** 2))
    return -10 * float(np.log10(max(error, 1e-12))) if np.isfinite(error) else -np.inf
