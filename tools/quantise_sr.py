"""An EDSR in 8-bit integers, or a system with one as SR_Quality, to be run by the native int8 kernel.

    python -m tools.quantise_sr --weights edsr_16x64 --scale 4 --data my/lr/images --out runs/sr_int8.safetensors
    python -m tools.quantise_sr --weights runs/stage3/conditional_sr_yolo_jointly_tuned.pth --data my/lr --out int8.pth

Nothing is trained: what the layers make of up to 64 images sets the step sizes of their bytes. The file is used
wherever the one that it was made of was; what the bytes cost is printed in dB between the images of both.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from models.sr_network import SRNetwork
    from models.system import ConditionalSRDetector

TRIED = 8  # images on which the loss is measured


def quantise_system(system: ConditionalSRDetector, images: list[Tensor]) -> tuple[ConditionalSRDetector, float]:
    """The system with its SR_Quality, or its only SR network, in 8-bit integers; and what that costs in dB.

    Raises:
        UserError: that network has no 8-bit form.
    """
    from models.conditional_sr import ConditionalSR
    from models.edsr_int8 import quantised
    from models.single_sr import SingleSR
    from models.system import ConditionalSRDetector

    front = system.front
    if system.sees_hr:
        raise UserError("int8: this system sees HR images and has no SR network; name another")
    network = front.networks["sr" if front.patch is None else "sr_quality"]
    integers = quantised(network, images)
    if front.patch is None:
        front = SingleSR(integers, front.zoom, front.max_pixels)
    else:
        front = ConditionalSR(front.masker, front.sr_fast, integers, front.execution)
    return ConditionalSRDetector(front, system.detector).eval(), loss_db(integers, network, images)


def loss_db(integers: nn.Module, network: nn.Module, images: list[Tensor]) -> float:
    """PSNR in dB between the images of two networks, over all pixels of some images."""
    import torch

    from utils.timing import spread

    squares, pixels = 0.0, 0
    with torch.no_grad():
        for number in spread(len(images), TRIED):
            ours, theirs = (one(images[number]).clamp(0, 1) for one in (integers, network))
            squares += (ours - theirs).double().square().sum().item()
            pixels += ours.numel()
    return -10 * math.log10(max(squares / pixels, 1e-12))


def quantise_file(weights: str, scale: int | None, data: Path, out: Path) -> float:
    """Write the 8-bit form of a weight file, see the module; returns what it costs in dB.

    Raises:
        UserError, CheckpointError: no such weights, no 8-bit form, no images, or a suffix that fits not.
    """
    import torch

    from deployment.export.quantise import calibration_images
    from loading.assembled_system import ready_network
    from loading.checkpoints import checkpoint_kind
    from loading.systems import load_system
    from models.edsr_int8 import quantised
    from utils.checkpoint import load_network, save_network

    is_system = checkpoint_kind(weights) == "system"
    needed = ".pth" if is_system else ".safetensors"
    if out.suffix != needed:
        raise UserError(f"out: {out} must end in {needed}, since {weights} is a {'system' if is_system else 'network'}")
    images = [torch.from_numpy(image) for image in calibration_images(data, None)]
    if is_system:
        system, loss = quantise_system(load_system(weights), images)
        meta = load_network(weights)["meta"]
        out.parent.mkdir(parents=True, exist_ok=True)
        save_network(out, "system", system.spec["name"], system.spec["args"], system.state_dict(), meta)
        return loss
    network = ready_network(weights, scale)
    integers = quantised(network, images)
    write_safetensors(out, integers)
    return loss_db(integers, network, images)


def write_safetensors(out: Path, network: SRNetwork) -> None:
    """A weight file that says how to build its network."""
    from tools.publish_weights import to_safetensors
    from utils.atomic_file import replace_file

    content = to_safetensors(network)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, lambda stream: stream.write(content))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="an edsr with tail single: file or shipped name; or a system")
    parser.add_argument("--scale", type=int, help="of a shipped name (default: 4)")
    parser.add_argument("--data", type=Path, required=True, help="folder of LR images like those of the use")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .safetensors, for a system .pth")
    options = parser.parse_args(argv)
    if options.out.exists():
        raise UserError(f"{options.out}: is there already; name another --out")
    loss = quantise_file(options.weights, options.scale, options.data, options.out)
    print(f"{options.out}: {loss:.1f} dB between its images and those of {options.weights}")
    return 0


if __name__ == "__main__":
    from utils.cli import run

    run(main)
