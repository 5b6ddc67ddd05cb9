"""What a short halo costs: PSNR of SR_Quality run on all tiles, against the same network run on the whole image.

    python -m benchmarks.halo_cost --weights runs/stage2/sr_quality_pretrained.pth --hr datasets/Set14

Prints a Markdown table (PSNR on Y in dB, difference to the dense run) and, with --json FILE, writes the figures. CPU,
fp32; nothing random.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HALOS, PATCHES = (0, 1, 2, 4), (8, 16, 32)
PARTS = 8  # tiles are run in parts: all at once, the engine would notice that the dense run is cheaper and take it


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="stage-2 checkpoint")
    parser.add_argument("--hr", required=True, help="folder of HR images, or one with HR/ and LR_bicubic/ inside")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(argv)

    import numpy as np
    import torch

    from data.sr_pairs import benchmark_pairs
    from loading.load_sr import load_sr
    from models.masker import patch_grid
    from models.tiling.run_patches import run_on_tiles
    from utils.convert import to_uint8
    from utils.logger import environment
    from utils.metrics import mean_over_images, psnr_y

    network = load_sr(options.weights)
    pairs = benchmark_pairs(options.hr, network.scale)

    @torch.no_grad()
    def quality(patch: int | None, halo: int) -> float:
        """Mean PSNR with tiles of `patch`, or of the dense run."""
        values = []
        for _, lr, hr in pairs:
            image = torch.from_numpy(np.ascontiguousarray(lr.transpose(2, 0, 1)))[None].float() / 255
            if patch is None:
                sr = network(image)
            else:
                rows, columns = patch_grid(*image.shape[-2:], patch)
                number = torch.arange(rows * columns).view(1, rows, columns)
                sr = torch.zeros(1, 3, *(side * network.scale for side in image.shape[-2:]))
                for part in range(PARTS):
                    sr = run_on_tiles(network, image, number % PARTS == part, patch, halo, sr)
            pixels = to_uint8(sr[0])
            values.append(psnr_y(pixels, hr, border=network.scale))
        return mean_over_images(values)

    dense = quality(None, 0)
    rows = [
        {"patch": patch, "halo": halo, "psnr": quality(patch, halo)} | {"dense": dense}
        for patch in PATCHES
        for halo in HALOS
    ]
    print(f"dense {dense:.3f} dB, {len(pairs)} images\n\n| patch | " + " | ".join(f"halo {h}" for h in HALOS) + " |")
    print("|---|" + "---|" * len(HALOS))
    for patch in PATCHES:
        cells = [f"{row['psnr'] - dense:+.3f}" for row in rows if row["patch"] == patch]
        print(f"| {patch} | " + " | ".join(cells) + " |")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "environment": environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
