"""SR networks by name: add a network by adding a line to SR_NETWORKS.

Every network maps LR images (B, 3, h, w) in [0, 1] of any size to (B, 3, scale * h, scale * w), not clamped; one for
any scale is called as forward(lr, size), the height and width of the result. It derives from SRNetwork, which holds
nothing and tells the type checker that it has

- `scale`: its factor, for any scale the one where no size is given;
- `capabilities`: what else generic code may know of it, see models/capabilities.py; whoever runs, tiles, trains or
  compares networks asks this record and never what class they are;
- `tail`: the last layers with parameters, None where there are none;
- `spec`: plain values from which `build_sr` builds the same network again.

A network of another kind fits in by its record. One for latent diffusion, say, is `Capabilities(
receptive_radius=None, local_receptive_radius=16, tiling="overlap", blend=4, size_multiple=16, stochastic=True, steps=4,
dtypes=(torch.float32,))`: it is run eagerly, on patches and tiles in windows of their own with a halo of 16 that fade
into each other, with noise that belongs to the place in the image (models/noise.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from models.difiisr_dwt.network import DifIISRDWT
from models.edsr_int8 import EDSRInt8
from models.ldcsr import LDCSR, LDCSRKD
from models.lmf import lm_ciaosr, lm_hybrid, lm_liif, lm_lte
from models.networks.carn import CARN
from models.networks.imdn import IMDN
from models.networks.rcan import RCAN
from models.networks.rdn import RDN
from models.networks.rfdn import RFDN
from models.networks.span import SPAN
from models.networks.spandrel_any import SpandrelNetwork
from models.networks.swinir import SwinIR
from models.one_step_diffusion import OneStepDiffusion
from models.sr_fast import ESPCN, FSRCNN, Bicubic
from models.sr_network import SRNetwork
from models.sr_quality import EDSR, SRResNet
from utils.errors import UserError

SR_NETWORKS: dict[str, Callable[..., SRNetwork]] = {
    "bicubic": Bicubic,
    "espcn": ESPCN,
    "fsrcnn": FSRCNN,
    "edsr": EDSR,
    "edsr_int8": EDSRInt8,
    "srresnet": SRResNet,
    "carn": CARN,
    "carn_m": partial(CARN, efficient=True, groups=4),
    "imdn": IMDN,
    "rfdn": RFDN,
    "span": SPAN,
    "rcan": RCAN,
    "rdn": RDN,
    "swinir_light": partial(SwinIR, dim=60, n_groups=4, upsampler="pixelshuffledirect"),
    "swinir": SwinIR,
    "spandrel": SpandrelNetwork,  # what a published weight file of another architecture holds
    "lm_liif": lm_liif,
    "lm_lte": lm_lte,
    "lm_ciaosr": lm_ciaosr,
    "lm_hybrid": lm_hybrid,
    "difiisr_dwt": DifIISRDWT,
    "one_step_diffusion": OneStepDiffusion,
    "ldcsr": LDCSR,
    "ldcsr_kd": LDCSRKD,
}  # fmt: skip


def build_sr(name: str, scale: float, args: dict | None = None) -> SRNetwork:
    """Build the SR network `name` for `scale` with the keyword arguments `args` (besides scale).

    The network carries `spec` = {"name", "args"}, plain values from which the same network can be built again
    (its "args" include scale).

    Raises:
        ValueError: unknown name, scale or argument, or a value of the wrong kind; the message says what is valid.
    """
    if name not in SR_NETWORKS:
        raise UserError(f"SR network {name!r} is unknown; use one of {', '.join(SR_NETWORKS)}")
    args = {key: value for key, value in (args or {}).items() if (key, value) != ("scale", scale)}
    parameters = inspect.signature(SR_NETWORKS[name]).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items() if key != "scale"}
    for key, value in args.items():
        if key not in defaults:
            takes = ", ".join(defaults) or "none"
            raise UserError(
                f"SR network {name!r}: unknown argument {key!r}; it takes {takes}; where only the name was "
                "changed, give args too"
            )
        kind = type(defaults[key])
        if type(value) not in ((int, float) if kind is float else (kind,)) or (kind is int and value < 1):
            needed = "a positive integer" if kind is int else f"of type {kind.__name__}"
            raise UserError(f"SR network {name!r}: {key} is {value!r}, but must be {needed}")
    network = SR_NETWORKS[name](scale=scale, **args)
    network.spec = {"name": name, "args": {"scale": scale, **args}}
    return network
