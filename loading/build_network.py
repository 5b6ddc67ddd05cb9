"""SR networks with fresh weights, and with those that lie in a folder beside every checkpoint of theirs."""

from __future__ import annotations

from loading.bounded_build import unbounded
from models import build_sr
from models.sr_network import SRNetwork


def build_network(name: str, scale: float, args: dict | None = None) -> SRNetwork:
    """`build_sr`; a network whose arguments name a folder of base weights gets these.

    Raises:
        UserError: see `build_sr` and `load_base`.
    """
    folder = (args or {}).get("base")
    if not folder:
        return build_sr(name, scale, args)
    from loading.one_step_base import check_base, load_base

    check_base(folder)  # before anything is built, which takes seconds
    with unbounded():
        return load_base(build_sr(name, scale, args))


def network_of_role(role: str, spec: dict) -> SRNetwork:
    """The same from a spec, whatever the network's role; see `build_front`."""
    args = dict(spec["args"])
    return build_network(spec["name"], args.pop("scale"), args)
