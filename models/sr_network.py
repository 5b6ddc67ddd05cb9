"""The type of an SR network, for annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from models.capabilities import Capabilities


class SRNetwork(nn.Module):
    """Declares what every SR network has, and holds nothing itself; see models/__init__.py.

    It is a class and no Protocol, since an SR network is a module too. Nothing asks at run time whether a network
    derives from it.

    Attributes:
        scale: factor; for any scale the one where no size is given, which may be fractional.
        capabilities: what generic code may know of the network.
        spec: plain values from which `build_sr` builds the same network again.
        tail: the last layers with parameters, None where there are none.
    """

    scale: int
    capabilities: Capabilities
    spec: dict

    if TYPE_CHECKING:  # at run time a property would hide the layers that some networks keep under this name

        @property
        def tail(self) -> nn.Module | None: ...

        def tiled(self, lr: Tensor, size: tuple[int, int], tile: int, halo: int) -> Tensor:
            """SR images (B, 3, *size), where the capabilities' tiling is "own"."""

        def with_seed(self, seed: int) -> SRNetwork:
            """A copy that shares the weights and draws other noise, where the capabilities say "stochastic"."""
