"""A narrower EDSR from a trained one: whole feature maps are taken out, to be fine-tuned by stage 2.

    python -m tools.prune_sr weights/edsr_16x64_x4.safetensors --n-feats 48 --out runs/pruned.pth

Maps are ranked by the norms of the filters that write and of those that read them (after Li et al. 2017,
arXiv:1608.08710). The maps that all blocks share are chosen once, those inside a block for each block.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.sr_network import SRNetwork


def pruned(network: SRNetwork, n_feats: int) -> SRNetwork:
    """An `edsr` of `n_feats` maps with the most important ones of another.

    Raises:
        UserError: another network, a staged tail, or more maps than there are.
    """
    import torch

    from models import build_sr

    args = dict(network.spec["args"])
    if network.spec["name"] != "edsr" or args.get("tail", "staged") != "single":
        raise UserError(f"{network.spec['name']}: only edsr with tail single is pruned")
    if not 3 <= n_feats <= args.get("n_feats", 64):
        raise UserError(f"n-feats is {n_feats}; this network has {args.get('n_feats', 64)}, take fewer")
    narrow = build_sr("edsr", args.pop("scale"), args | {"n_feats": n_feats})
    old, new = parts(network), parts(narrow)
    writers, readers = shared(old)
    stream = most_important(writers, readers, n_feats)
    everything = slice(None)
    with torch.no_grad():
        copy(new["head"], old["head"], stream, everything)
        for (first, second), (old_first, old_second) in zip(new["blocks"], old["blocks"], strict=True):
            inner = most_important([old_first], [old_second], n_feats)
            copy(first, old_first, inner, stream)
            copy(second, old_second, stream, inner)
        copy(new["last"], old["last"], stream, stream)
        copy(new["tail"], old["tail"], everything, stream)
    return narrow.eval()


def parts(network: SRNetwork) -> dict:
    """Convolutions by what they do: head, blocks as pairs, the one after them, and the tail."""
    blocks = [(block.body[0], block.body[2]) for block in network.body[:-1]]
    return {"head": network.head[0], "blocks": blocks, "last": network.body[-1], "tail": network.tail[0]}


def shared(old: dict) -> tuple[list[nn.Conv2d], list[nn.Conv2d]]:
    """Those that write the maps which all blocks share, and those that read them."""
    firsts, seconds = zip(*old["blocks"], strict=True)
    return [old["head"], *seconds, old["last"]], [*firsts, old["last"], old["tail"]]


def most_important(writers: list[nn.Conv2d], readers: list[nn.Conv2d], count: int) -> Tensor:
    """Indices of `count` maps, in their order."""
    written = sum(w.weight.detach().abs().sum((1, 2, 3)) + w.bias.detach().abs() for w in writers)
    read = sum(r.weight.detach().abs().sum((0, 2, 3)) for r in readers)
    return (written * read).topk(count).indices.sort().values


def copy(to: nn.Conv2d, source: nn.Conv2d, outputs: Tensor | slice, inputs: Tensor | slice) -> None:
    to.weight.copy_(source.weight[outputs][:, inputs])
    to.bias.copy_(source.bias[outputs])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a trained edsr with tail single")
    parser.add_argument("--n-feats", type=int, required=True, help="feature maps that stay")
    parser.add_argument("--out", type=Path, required=True, help="file to write, a checkpoint as stage 2 takes it")
    options = parser.parse_args(argv)

    from loading.load_sr import load_sr
    from utils.checkpoint import save_network

    if options.out.exists():
        raise UserError(f"{options.out}: is there already; name another --out")
    network = pruned(load_sr(options.weights), options.n_feats)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_network(options.out, "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    print(f"{options.out}: sr_quality.args is {network.spec['args']}")
    return 0


if __name__ == "__main__":
    from utils.cli import run

    run(main)
