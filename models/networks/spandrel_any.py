"""Any further SR network of spandrel (ESRGAN, Compact, HAT, DAT, ...), as found in a published checkpoint.

LR images (B, 3, h, w) in [0, 1] become (B, 3, scale * h, scale * w); the output is not clamped.
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from torch import nn

from models.capabilities import Capabilities, checked_scale
from models.sr_network import SRNetwork
from utils.errors import UserError

HALO = 32  # LR pixels
PLAIN = (bool, int, float, str, type(None))


class SpandrelNetwork(SRNetwork):
    """A network of spandrel under this project's interface.

    Its reach is not known: HALO is only what tiles take by default.

    Args:
        scale: 2, 3 or 4.
        package: package of the network within spandrel.architectures, such as "ESRGAN".
        network: its class there, such as "ESRGAN".
        settings: the class' keyword arguments as JSON.
        minimum: least side of the image that the network sees, in LR pixels; smaller ones are padded.
        multiple: sides are padded to multiples of it, in LR pixels.

    Raises:
        ValueError: no such network, or the settings are not its own.
    """

    tail = None

    def __init__(
        self,
        scale: int,
        package: str = "",
        network: str = "",
        settings: str = "{}",
        minimum: int = 1,
        multiple: int = 1,
    ):
        super().__init__()
        self.scale = checked_scale(self, scale)
        from spandrel import architectures

        layers = getattr(getattr(architectures, package, None), network, None)
        if not (isinstance(layers, type) and issubclass(layers, nn.Module)):
            raise UserError(
                f"spandrel has no network {package}.{network}; 'spandrel' stands for what a checkpoint of another"
                " architecture holds: name that file as `weights`"
            )
        try:
            self.net = layers(**json.loads(settings))
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"spandrel's {package}.{network} cannot be built from {settings}: {error}") from error
        self.minimum = minimum
        self.multiple = multiple
        self.capabilities = Capabilities(None, local_receptive_radius=HALO, tiling="overlap", size_multiple=multiple)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        height, width = lr.shape[-2:]
        bottom, right = (self._missing(side) for side in (height, width))
        mode = "reflect" if bottom < height and right < width else "replicate"
        # A copy: some of these networks change their input in place.
        x = F.pad(lr, (0, right, 0, bottom), mode=mode) if bottom or right else lr.clone()
        return self.net(x)[..., : self.scale * height, : self.scale * width]

    def _missing(self, side: int) -> int:
        wanted = max(side, self.minimum)
        return wanted + -wanted % self.multiple - side


def spandrel_arguments(model: nn.Module) -> dict[str, str]:
    """Arguments with which SpandrelNetwork builds this network again; what is no plain value is left out."""
    from spandrel import architectures

    package = type(model).__module__.split(".")[2]
    public = vars(getattr(architectures, package))  # there the class may have another name
    network = next(name for name, value in public.items() if value is type(model))
    settings = {
        key: value
        for key, value in vars(model)["hyperparameters"].items()
        if isinstance(value, PLAIN)
        or (isinstance(value, list | tuple) and all(isinstance(item, PLAIN) for item in value))
    }
    return {"package": package, "network": network, "settings": json.dumps(settings, sort_keys=True)}
