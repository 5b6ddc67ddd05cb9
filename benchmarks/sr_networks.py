"""Parameters, multiply-accumulates, reach and size multiple of every fixed-scale SR network, beside published figures.

    python -m benchmarks.sr_networks

Writes docs/results/sr_networks.md. Nothing is measured or random: shapes alone give the figures. MACs are those for an
output of 1280 x 720 (at x3: 1281 x 720), as SR papers count them; one MAC is two FLOPs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "results" / "sr_networks.md"
HEIGHT, WIDTH = 720, 1280
# No size of its own; or a diffusion system, which docs/results/generative.md measures.
SKIPPED = ("spandrel", "edsr_int8", "ldcsr", "ldcsr_kd", "difiisr_dwt", "one_step_diffusion")

# (network, scale): (thousand parameters, GMAC); None where the paper gives none for RGB at 1280 x 720.
PUBLISHED: dict[tuple[str, int], tuple[float | None, float | None]] = {
    ("edsr", 2): (1370, 316.3), ("edsr", 3): (1555, 160.2), ("edsr", 4): (1518, 114.0),
    ("srresnet", 4): (1543, 127.8),
    ("carn", 2): (None, 222.8), ("carn", 3): (None, 118.8), ("carn", 4): (None, 90.9),
    ("carn_m", 2): (None, 91.2), ("carn_m", 3): (None, 46.1), ("carn_m", 4): (None, 32.5),
    ("imdn", 2): (694, 158.8), ("imdn", 3): (703, 71.5), ("imdn", 4): (715, 40.9),
    ("rfdn", 4): (433, None),
    ("span", 2): (481, None), ("span", 4): (498, None),
    ("rcan", 2): (15440, 3529.7), ("rcan", 3): (15630, 1586.1), ("rcan", 4): (15590, 917.6),
    ("rdn", 2): (22120, 5096.2), ("rdn", 3): (22310, 2281.2), ("rdn", 4): (22270, 1309.2),
    ("swinir_light", 2): (910, 244), ("swinir_light", 3): (918, 111), ("swinir_light", 4): (930, 64),
}  # fmt: skip

NOTES = """\
- Parameters of EDSR are those of the "baseline" (16 blocks of 64 maps). SRResNet's published figure leaves out biases,
  BatchNorm and PReLU.
- CARN and CARN-M are published with the upsamplers of all three scales in one network: 1592 K, and 412 K without
  biases. A network here holds one upsampler.
- RFDN is the released network (winner of AIM 2020, 433 K, 27.1 GMAC for an LR image of 256 x 256). Its paper tabulates
  a larger one (550 K at x4) that the released code does not build.
- SPAN has the deployed form, its training branches merged; the published figures are for 52 maps.
- SwinIR-light's figures are those that later papers count with the released code; its own paper has 878, 886 and 897 K
  with 195.6, 87.2 and 49.6 GMAC, which leaves a part of the network out.
- ESPCN and FSRCNN are published for one colour channel, here they map RGB to RGB.
- "-" as reach: attention sees the whole image, or depends on the place in it. Tiles are then an approximation: their
  attention sees the tile with its halo, by default the reach of the convolutions, given in brackets.
"""


def row(name: str, scale: int) -> str:
    """One line of the table."""
    from models import build_sr
    from utils.flops_counter import count_macs_at, count_parameters

    network = build_sr(name, scale)
    thousands = count_parameters(network) / 1000
    gmac = count_macs_at(network, -(-HEIGHT // scale), -(-WIDTH // scale)) / 1e9
    can = network.capabilities
    reach = str(can.receptive_radius) if can.receptive_radius is not None else f"- ({can.local_receptive_radius})"
    published = [f"{figure:,g}" if figure else "" for figure in PUBLISHED.get((name, scale), (None, None))]
    cells = [name, f"x{scale}", f"{thousands:,.1f}", published[0], f"{gmac:,.1f}", published[1], reach]
    return "| " + " | ".join([*cells, str(can.size_multiple)]) + " |"


def fixed_scale_networks() -> list[str]:
    """Names of the networks of one scale each."""
    from models import SR_NETWORKS, build_sr

    return [n for n in SR_NETWORKS if n not in SKIPPED and not build_sr(n, 2).capabilities.takes_size]


def document() -> str:
    """The whole page, in Markdown."""
    from models.capabilities import WHOLE_SCALES

    head = ["network", "scale", "parameters, K", "published", "GMAC", "published", "reach, LR px", "size multiple"]
    lines = [
        "# SR networks of fixed scale",
        "",
        "Written by `python -m benchmarks.sr_networks`, defaults of every network.",
    ]
    lines += [
        f"GMAC are multiply-accumulates for an output of {WIDTH} x {HEIGHT}, reach is what one LR pixel's HR cell sees"
    ]
    lines += ["around it, and images are padded to the size multiple inside the network.", ""]
    lines += ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    lines += [row(name, scale) for name in fixed_scale_networks() for scale in WHOLE_SCALES]
    return "\n".join(lines) + "\n\n" + NOTES


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DOCUMENT, help="file to write")
    options = parser.parse_args(argv)
    text = document()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
