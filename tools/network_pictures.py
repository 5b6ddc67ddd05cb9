"""Pictures of what an SR network or a system sees in an image: features, attention, and the masker's decision.

    python -m tools.network_pictures --weights runs/stage2/sr_quality_pretrained.pth --image image.png --out pictures

Writes PNG files: features_mean.png and features_channels.png (the maps that vary most), attention_channels_*.png and
attention_places_*.png of every attention that a network has, and for a system with a masker mask_probability.png and
mask_kept.png. Colours go from dark blue, the least value of a picture, to yellow, the largest; of a probability from 0
to 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from models.sr_network import SRNetwork

CHANNELS = 16  # maps of features_channels.png
BAR = 8  # pixels a side that a channel's factor takes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="an SR network, `shipped`, or a system of stage 3")
    parser.add_argument("--image", required=True, help="LR image")
    parser.add_argument("--out", type=Path, required=True, help="new or empty folder for the pictures")
    parser.add_argument("--part", choices=("sr_fast", "sr_quality"), help="of a system with a masker: which network")
    parser.add_argument("--policy", default="budget=0.25", help="of a system with a masker: which patches are kept")
    parser.add_argument("--most", type=int, default=8, help="most attentions that are drawn, spread over the network")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    options = parser.parse_args(argv)
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        parser.error(f"--out {options.out} exists and is not empty: name a new folder")
    if options.most < 1:
        parser.error("--most must be 1 or more")

    import cv2

    from prediction.image_input import MAX_PIXELS, one_image
    from utils.atomic_file import replace_file
    from utils.device import choose_device

    image, device = one_image(options.image, None, MAX_PIXELS), choose_device(options.device)
    pictures = pictures_of(options.weights, image, options.part, options.policy, options.most, device)
    for name, picture in pictures.items():
        content = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
        replace_file(options.out / f"{name}.png", lambda file, content=content: file.write(content))
        print(options.out / f"{name}.png")
    return 0


def pictures_of(
    weights: str, image: np.ndarray, part: str | None, policy: str, most: int, device: torch.device
) -> dict[str, np.ndarray]:
    """{name: uint8 (H, W, 3)} of the image, uint8 (h, w, 3).

    Raises:
        UserError: weights that cannot be read, a part or a policy that they do not have.
    """
    from loading.checkpoints import checkpoint_kind, load_front
    from loading.shipped_weights import SHIPPED
    from prediction.super_resolver import SuperResolver
    from utils.convert import to_tensor
    from utils.errors import UserError

    lr = to_tensor(image, device)
    if weights == SHIPPED or checkpoint_kind(weights) != "system":
        if part is not None:
            raise UserError(f"{weights}: holds an SR network alone; leave out --part")
        return network_pictures(SuperResolver(weights, device=device.type).network, lr, most)
    front = load_front(weights).to(device)
    networks = {role: network for role, network in front.networks.items() if role != "masker"}
    if part is None:
        part = "sr_quality" if "sr_quality" in networks else next(iter(networks), None)
    if part not in networks:
        raise UserError(f"{weights}: this system has no {part or 'SR network'}; it has {', '.join(networks) or 'none'}")
    pictures = network_pictures(networks[part], lr, most)
    return pictures | (mask_pictures(front, image, lr, policy) if "masker" in front.networks else {})


def network_pictures(network: SRNetwork, lr: torch.Tensor, most: int) -> dict[str, np.ndarray]:
    """Features, where there are any, and attentions of a network for an LR image (1, 3, h, w)."""
    from models.attention_maps import attention_maps
    from models.feature_maps import feature_maps
    from utils.errors import UserError
    from utils.timing import spread

    try:
        pictures = feature_pictures(feature_maps(network, lr)[0].float().cpu().numpy())
    except UserError as error:
        print(error)
        pictures = {}
    found = attention_maps(network, lr)
    for number in spread(len(found), most) if found else ():
        attention = found[number]
        values = attention.weights.cpu().numpy()
        picture = drawn(values) if attention.kind == "places" else bars(values)
        pictures[f"attention_{attention.kind}_{number:02d}_{attention.name or 'network'}"] = picture
    if not pictures:
        raise UserError(f"{network.spec['name']} has neither features nor attention to draw")
    return pictures


def feature_pictures(maps: np.ndarray) -> dict[str, np.ndarray]:
    """The mean of the maps (C, h, w), and those that vary most, in rows."""
    import numpy as np

    from utils.overlay import panel

    chosen = np.sort(np.argsort(-maps.std((1, 2)), kind="stable")[:CHANNELS])
    tiles = [heat_map(maps[channel]) for channel in chosen]
    columns = -(-len(tiles) // 4) if len(tiles) > 4 else len(tiles)
    rows = [range(first, min(first + columns, len(tiles))) for first in range(0, len(tiles), columns)]
    lines = [panel([tiles[i] for i in row], [f"map {chosen[i]}" for i in row]) for row in rows]
    width = max(line.shape[1] for line in lines)
    lines = [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0))) for line in lines]
    return {"features_mean": drawn(maps.mean(0)), "features_channels": np.concatenate(lines)}


def mask_pictures(front, image: np.ndarray, lr: torch.Tensor, policy: str) -> dict[str, np.ndarray]:
    """The masker's probability of SR_Quality by patch, and the patches that a policy keeps."""
    import numpy as np
    import torch

    from models.mask_policy import parse_policy
    from utils.gumbel import keep_probability
    from utils.overlay import READABLE_HEIGHT, enlarge, panel, shade_mask

    with torch.no_grad():
        probability = keep_probability(front.masker(lr))[0, 0].cpu().numpy()
        mask = front.infer(lr, parse_policy(policy)).mask[0, 0].cpu().numpy()
    shown, factor = enlarge(image, READABLE_HEIGHT)
    height, width = shown.shape[:2]
    side = front.patch * factor
    likely = heat_map(np.kron(probability, np.ones((side, side)))[:height, :width], 0, 1)
    kept = panel([shade_mask(shown, mask, side)], [f"{policy}: kept {mask.mean():.2f}"])
    return {"mask_probability": likely, "mask_kept": kept}


def drawn(values: np.ndarray) -> np.ndarray:
    """A map (h, w) as colours, large enough to be looked at."""
    from utils.overlay import READABLE_HEIGHT, enlarge

    return enlarge(heat_map(values), READABLE_HEIGHT)[0]


def bars(factors: np.ndarray) -> np.ndarray:
    """Factors (C,) of channels as coloured squares in a row, from 0 to 1."""
    import numpy as np

    return heat_map(np.kron(factors[None], np.ones((4 * BAR, BAR))), 0, 1)


def heat_map(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Numbers as colours from dark blue (low) to yellow (high), uint8 (H, W, 3).

    Args:
        values: finite, (H, W).
        low, high: what the ends of the scale stand for; None takes the least and the largest value.
    """
    import cv2
    import numpy as np

    values = np.asarray(values, np.float64)
    low, high = (float(values.min()) if low is None else low), (float(values.max()) if high is None else high)
    share = np.clip((values - low) / (high - low if high > low else 1), 0, 1)
    return np.ascontiguousarray(
        cv2.applyColorMap(np.rint(255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    )


if __name__ == "__main__":
    from utils.cli import run

    run(main)
