"""A front end of benchmarks/label_free.py as published weights: weights/label_free/NAME.safetensors, and its card.

    python -m tools.publish_label_free runs/label_free --variant 'four times the steps' --name edsr_8x32_yolo11n_x4

The card holds the figures of that run (label_free.json), beside the shipped weights that the training started from.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from utils.errors import UserError

FOLDER = Path("weights/label_free")
PLACES = {"held-out crops": ("agreement",), "labelled photographs": ("agreement", "mAP")}


def card(name: str, variant: str, content: dict, parameters: int) -> str:
    """The card as Markdown.

    Args:
        name: of the weight file, without its ending.
        variant: of the benchmark.
        content: label_free.json.
        parameters: of the network.
    """
    results, base, where = content["results"], content["rivals"][variant], content["environment"]
    cells = {
        "network": f"EDSR, {base.removeprefix('EDSR ')}, x{content['scale']}, {parameters:,} parameters",
        "trained": f"from the shipped {base}, through the frozen detector, without labels: neck features and outputs "
        f"as on HR pictures, {content['steps'][variant]:,} steps, seed {content['seed']}, fp32, {where['cpu']}, "
        f"{str(where['date'])[:10]}",
        "checkpoint": "averaged weights of the last step, no earlier one was chosen",
    }
    for place, figures in PLACES.items():
        for figure in figures:
            rows, images = results[place][figure], results[place]["images"]
            low, high = rows[variant]["leads"][base]
            cells[f"{figure}, {place}"] = (
                f"**{rows[variant]['value']:.3f}**, shipped {base} {rows[base]['value']:.3f} (lead {low:+.3f} to "
                f"{high:+.3f}), bicubic {rows['bicubic']['value']:.3f}; {images:,} images"
            )
    table = "".join(f"| {key} | {value} |\n" for key, value in cells.items())
    note = (
        "Agreement is mAP50-95 with what the detector finds in HR pictures; intervals are of 95 %, a bootstrap over "
        "photographs. For pictures that people look at the shipped weights are better: this network is trained for "
        "one detector."
    )
    command = f"Trained and measured by\n\n```\n{content['command']}\n```\n"
    return f"# {name}\n\n| | |\n|---|---|\n{table}\n{note}\n\n{command}"


def publish(run: Path, variant: str, name: str, out: Path) -> Path:
    """Write OUT/NAME.safetensors and OUT/NAME.md, and bring OUT/SHA256SUMS up to date.

    Args:
        run: `--out` of the benchmark.
        variant: of the benchmark.
        name: of the two files.
        out: their folder.

    Returns:
        The weight file.

    Raises:
        UserError: the run is not finished, or has no such variant.
    """
    from loading.systems import load_system
    from tools.publish_weights import to_safetensors, write_sums
    from utils.atomic_file import replace_file, replace_text

    table = run / "label_free.json"
    if not table.is_file():
        raise UserError(f"{table} does not exist; let benchmarks/label_free.py finish")
    content = json.loads(table.read_text(encoding="utf-8"))
    if variant not in content["rivals"]:
        raise UserError(f"--variant: {variant!r} is not in {table}; there are {', '.join(content['rivals'])}")
    network = load_system(run / "trained" / variant.replace(" ", "_").replace(",", "") / "system.pth").front.network
    text = card(name, variant, content, sum(parameter.numel() for parameter in network.parameters()))
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / f"{name}.safetensors", lambda stream: stream.write(to_safetensors(network)))
    replace_text(out / f"{name}.md", text)
    write_sums(out)
    return out / f"{name}.safetensors"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="--out of benchmarks/label_free.py")
    parser.add_argument("--variant", required=True, help="which of its networks")
    parser.add_argument("--name", required=True, help="of the two files, without ending")
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"their folder (default: {FOLDER})")
    options = parser.parse_args(argv)
    print(f"published: {publish(options.run, options.variant, options.name, options.out)}, with its card beside it")
    return 0


if __name__ == "__main__":
    from utils.cli import run

    run(main)
