"""models/lpips.py and loading/load_lpips.py against torchvision's backbones and the formula written out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from loading.load_lpips import load_lpips
from models.lpips import SCALE, SHIFT, lpips_from_state
from utils.checkpoint import CheckpointError

TAPS = {"alexnet": (1, 4, 7, 9, 11), "vgg16": (3, 8, 15, 22, 29)}  # ReLUs of torchvision's `features`
WIDTHS = {"alexnet": (64, 192, 384, 256, 256), "vgg16": (64, 128, 256, 512, 512)}


def backbone(name: str) -> torch.nn.Module:
    import torchvision

    return getattr(torchvision.models, name)(weights=None).eval()


def channel_weights(name: str) -> dict[str, Tensor]:
    return {f"lin{k}.model.1.weight": torch.rand(1, width, 1, 1) for k, width in enumerate(WIDTHS[name])}


@torch.no_grad()
def by_the_formula(name: str, network, lin: dict[str, Tensor], one: Tensor, other: Tensor) -> Tensor:
    """Zhang et al. 2018, equation 1."""
    total = torch.zeros(len(one))
    inputs = [
        (2 * x - 1 - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None] for x in (one, other)
    ]
    for place, layer in enumerate(network.features[: TAPS[name][-1] + 1]):
        inputs = [layer(x) for x in inputs]
        if place in TAPS[name]:
            weight = lin[f"lin{TAPS[name].index(place)}.model.1.weight"]
            unit = [x / x.norm(dim=1, keepdim=True).clamp_min(1e-10) for x in inputs]
            total += (weight * (unit[0] - unit[1]) ** 2).sum(1).mean((1, 2))
    return total


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_agrees_with_the_formula_on_torchvisions_backbone(name: str):
    network, lin = backbone(name), channel_weights(name)
    lpips = lpips_from_state(network.state_dict() | lin)
    assert lpips.backbone == name
    one, other = torch.rand(2, 3, 40, 50), torch.rand(2, 3, 40, 50)
    found = lpips(one, other)
    torch.testing.assert_close(found, by_the_formula(name, network, lin, one, other), rtol=1e-4, atol=1e-6)
    assert found.min() > 0 and torch.equal(lpips(one, one), torch.zeros(2))


def test_gradient_reaches_the_image_but_no_weight():
    lpips = lpips_from_state(backbone("alexnet").state_dict() | channel_weights("alexnet"))
    image = torch.rand(1, 3, 40, 40, requires_grad=True)
    lpips(image, torch.rand(1, 3, 40, 40)).sum().backward()
    assert image.grad.abs().sum() > 0 and not any(p.requires_grad for p in lpips.parameters())
    with pytest.raises(ValueError, match="at least 31 pixels a side, found 24x40"):
        lpips(torch.rand(1, 3, 24, 40), torch.rand(1, 3, 24, 40))


def test_uniform_images_have_a_finite_distance():
    lpips = lpips_from_state(backbone("alexnet").state_dict() | channel_weights("alexnet"))
    black, grey = torch.zeros(1, 3, 40, 40), torch.full((1, 3, 40, 40), 0.5)
    assert lpips(black, black).item() == 0 == lpips(grey, grey).item() and torch.isfinite(lpips(black, grey)).all()


def test_files_of_both_kinds_give_the_same(tmp_path: Path):
    network, lin = backbone("alexnet").state_dict(), channel_weights("alexnet")
    torch.save(network, tmp_path / "alexnet-owt-7be5be79.pth")
    torch.save(lin, tmp_path / "alex.pth")
    features = {name: value for name, value in network.items() if name.startswith("features")}
    whole = {f"net.slice1.{name.removeprefix('features.')}": value.contiguous() for name, value in features.items()}
    save_file(whole | lin, tmp_path / "lpips.safetensors")
    one, other = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    parts = load_lpips([tmp_path / "alex.pth", tmp_path / "alexnet-owt-7be5be79.pth"])
    assert torch.equal(parts(one, other), load_lpips([tmp_path / "lpips.safetensors"])(one, other))


def test_wrong_files_are_named(tmp_path: Path):
    torch.save(backbone("alexnet").state_dict(), tmp_path / "alexnet.pth")
    torch.save(channel_weights("vgg16"), tmp_path / "vgg.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for files, message in (
        ([], "no weights of LPIPS are named; LPIPS needs torchvision's backbone"),
        (["gone.pth"], r"gone\.pth: does not exist; LPIPS needs"),
        (["text.pth"], r"text\.pth: cannot be read as a state dict"),
        (["empty.safetensors"], r"empty\.safetensors: cannot be read as a state dict"),
        (["alexnet.pth"], r"alexnet\.pth: alexnet: the channel weights .* are missing"),
        (["vgg.pth"], r"vgg\.pth: no AlexNet or VGG16 backbone"),
        (["alexnet.pth", "vgg.pth"], r"alexnet: lin\.1 is \(1, 128, 1, 1\), expected \(1, 192, 1, 1\)"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_lpips([tmp_path / file for file in files])
