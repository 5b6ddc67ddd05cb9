"""`ldcsr_kd` from the weights of `ldcsr`: condition network and decoder alone, no diffusion.

    python -m tools.ldcsr_kd runs/ldcsr/sr_quality_pretrained.pth

Writes runs/ldcsr/sr_quality_pretrained_kd.pth, a checkpoint of stage 2 like the first.
"""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    from models.sr_network import SRNetwork


def without_diffusion(network: SRNetwork) -> SRNetwork:
    """`ldcsr_kd` with the weights of an `ldcsr`.

    Raises:
        UserError: another network.
    """
    from models import SR_NETWORKS, build_sr

    if network.spec["name"] != "ldcsr":
        raise UserError(f"{network.spec['name']} has no ldcsr_kd; give weights of ldcsr")
    args, known = dict(network.spec["args"]), inspect.signature(SR_NETWORKS["ldcsr_kd"]).parameters
    part = build_sr("ldcsr_kd", args.pop("scale"), {key: value for key, value in args.items() if key in known})
    weights = network.state_dict()
    part.load_state_dict({key: weights[key] for key in part.state_dict()})
    return part.eval()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="ldcsr: checkpoint of stage 2, or any other file with such weights")
    parser.add_argument("--out", type=Path, help="file to write (default: beside it, with _kd in its name)")
    options = parser.parse_args(argv)

    from loading.load_sr import load_sr
    from loading.state_dict_file import is_community_file
    from utils.checkpoint import load_network, save_network

    part = without_diffusion(load_sr(options.weights))
    meta = {} if is_community_file(options.weights) else load_network(options.weights, "sr")["meta"]
    out = options.out or options.weights.with_name(f"{options.weights.stem}_kd.pth")
    # The figures of the whole network are not those of this part.
    save_network(out, "sr", part.spec["name"], part.spec["args"], part.state_dict(), meta | {"metrics": {}})
    print(f"ldcsr_kd -> {out}")
    return 0


if __name__ == "__main__":
    from utils.cli import run

    run(main)
