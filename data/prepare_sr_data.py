"""Cut photographs into overlapping HR sub-images and write their bicubic LR copies, for SR training.

    python data/prepare_sr_data.py --source photographs --out prepared --scales 2 3 4 --size 480 --step 240

writes prepared/HR/NAME_s001.png and prepared/LR_bicubic/X4/NAME_s001x4.png. Train with data.train: [prepared/HR] and
data.lr_train: [prepared/LR_bicubic/X4].
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder of HR images, searched recursively")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--scales", type=int, nargs="+", choices=(2, 3, 4), default=[2, 3, 4], help="factors of LR")
    parser.add_argument("--size", type=int, default=480, help="side of a sub-image, HR pixels; small images stay whole")
    parser.add_argument("--step", type=int, default=240, help="distance of neighbouring sub-images in HR pixels")
    parser.add_argument("--max-pixels", type=int, default=100_000_000, help="larger images are refused before decoding")
    parser.add_argument("--overwrite", action="store_true", help="write into OUT although it is not empty")
    arguments = parser.parse_args(argv)
    common = math.lcm(*arguments.scales)
    for name in ("size", "step"):
        value = getattr(arguments, name)
        if value < common or value % common:
            parser.error(f"--{name} {value} must be a multiple of {common}, so that LR pixels match at every scale")
    source, out = arguments.source.resolve(), arguments.out.resolve()
    if not source.is_dir():
        parser.error(f"--source {arguments.source}: no such folder")
    if out.is_relative_to(source) or source.is_relative_to(out):
        parser.error(f"--out {arguments.out} and --source {arguments.source} lie in each other: choose another folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not arguments.overwrite:
        parser.error(f"--out {arguments.out} is not empty: choose another folder or add --overwrite")
    return arguments


def starts(length: int, size: int, step: int) -> list[int]:
    """First pixels of the sub-images along one axis: every `step`, and one that ends at the border."""
    if length <= size:
        return [0]
    return sorted({*range(0, length - size, step), length - size})


def sub_images(hr, scales: list[int], size: int, step: int):
    """Cut one image.

    HR is cropped from the top left to a multiple of all scales; LR is made from the whole image, then cut, so that
    sub-images have no borders of their own.

    Args:
        hr: uint8 (H, W, 3).
        scales: factors of LR.
        size: side of a sub-image in HR pixels, a multiple of all scales.
        step: distance of neighbours in HR pixels, a multiple of all scales.

    Yields:
        {1: HR sub-image, scale: LR sub-image, ...}, uint8.
    """
    from data.degradation import degrade_bicubic

    common = math.lcm(*scales)
    height, width = (length // common * common for length in hr.shape[:2])
    levels = {1: hr[:height, :width]}
    levels |= {scale: degrade_bicubic(levels[1], scale) for scale in scales}
    for y in starts(height, size, step):
        for x in starts(width, size, step):
            yield {s: a[y // s : (y + size) // s, x // s : (x + size) // s] for s, a in levels.items()}


def prepare_file(file: Path, name: Path, arguments: argparse.Namespace) -> int:
    """Write all sub-images of one file, each in one step.

    Args:
        file: HR image.
        name: relative name of the results, without ending.
        arguments: see `parse_arguments`.

    Returns:
        Number of HR sub-images.

    Raises:
        ImageError: unreadable, or smaller than one LR pixel.
    """
    from PIL import Image

    from data.images import ImageError, read_rgb
    from utils.atomic_file import replace_file

    hr = read_rgb(file, arguments.max_pixels)
    least = math.lcm(*arguments.scales)
    if min(hr.shape[:2]) < least:
        reason = f"{hr.shape[1]}x{hr.shape[0]} pixels are fewer than {least}x{least}"
        raise ImageError(file, reason, "remove the image or leave out a scale")
    number = 0
    for number, levels in enumerate(sub_images(hr, arguments.scales, arguments.size, arguments.step), start=1):
        for scale, pixels in levels.items():
            folder, ending = ("HR", "") if scale == 1 else (f"LR_bicubic/X{scale}", f"x{scale}")
            target = arguments.out / folder / name.with_name(f"{name.name}_s{number:03d}{ending}.png")
            image = Image.fromarray(pixels)
            replace_file(target, lambda stream, image=image: image.save(stream, format="PNG", compress_level=3))
    return number


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 1 if any image was skipped."""
    arguments = parse_arguments(argv)

    from tqdm import tqdm

    from data.image_files import ImageError, list_images, warn_of_unread

    files = list_images(arguments.source)
    warn_of_unread(arguments.source)
    if not files:
        print(f"{arguments.source}: no images in this folder; check the path", file=sys.stderr)
        return 1
    written, skipped, used = 0, [], set()
    for file in tqdm(files, unit="image", disable=None):
        name = file.relative_to(arguments.source).with_suffix("")
        while name in used:  # a.png beside a.jpg
            name = name.with_name(f"{name.name}_")
        used.add(name)
        try:
            written += prepare_file(file, name, arguments)
        except ImageError as error:
            skipped.append(error)
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    print(f"{written} sub-images of {len(files) - len(skipped)} images in {arguments.out}; {len(skipped)} skipped")
    return 1 if skipped else 0


if __name__ == "__main__":
    # Started by its path, Python puts data/ on the module path instead of the project's root.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.exit(main())
