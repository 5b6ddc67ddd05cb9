"""Features of SR networks: those that their last layers make the image of."""

from __future__ import annotations

import pytest
import torch

from models import SR_NETWORKS, build_sr
from models.feature_maps import feature_maps
from tests.drawn import AnySize
from utils.errors import UserError

SMALL = {
    "edsr": ({"n_blocks": 1, "n_feats": 8}, 8),
    "srresnet": ({"n_blocks": 1, "n_feats": 8}, 8),
    "rcan": ({"n_groups": 1, "n_blocks": 1, "n_feats": 16}, 16),
    "rdn": ({"n_blocks": 2, "n_feats": 8, "growth": 8, "n_layers": 2}, 8),
    "swinir": ({"dim": 12, "n_groups": 1, "n_blocks": 2}, 12),
    "swinir_light": ({"dim": 12, "n_groups": 1, "n_blocks": 2}, 12),
    "espcn": ({"n_feats": 8}, 4),
    "fsrcnn": ({}, 56),
    "carn": ({}, 64),
    "imdn": ({}, 64),
    "rfdn": ({}, 50),
    "span": ({}, 52),
    **{name: ({"n_blocks": 1, "n_feats": 8}, 8) for name in SR_NETWORKS if name.startswith("lm_")},
}


@pytest.mark.parametrize("name", SMALL)
def test_features_have_the_size_of_the_image(name: str):
    args, channels = SMALL[name]
    network, lr = build_sr(name, 2, args).eval(), torch.rand(2, 3, 13, 11)
    before = network(lr)
    maps = feature_maps(network, lr)
    assert maps.shape == (2, channels, 13, 11) and not maps.requires_grad
    assert torch.equal(network(lr), before), "the call left something behind"


def test_the_last_layers_make_the_image_of_them():
    network, lr = build_sr("edsr", 4, {"n_blocks": 2, "n_feats": 8, "tail": "single"}).eval(), torch.rand(1, 3, 9, 8)
    torch.nn.init.normal_(network.body[-1].weight, std=0.1)
    assert torch.equal(network.tail(feature_maps(network, lr)), network(lr))


def test_padding_inside_is_cut_off():
    network, lr = (
        build_sr("swinir_light", 2, {"dim": 12, "n_groups": 1, "n_blocks": 2}).eval(),
        torch.rand(1, 3, 13, 11),
    )
    maps = feature_maps(network, lr)
    sr = network.upsample(torch.nn.functional.pad(maps, (0, 5, 0, 3), mode="replicate"))[..., :20, :16] + network.mean
    assert torch.allclose(sr, network(lr)[..., :20, :16], atol=1e-5)


@pytest.mark.parametrize("network", [build_sr("bicubic", 2), AnySize()], ids=["bicubic", "any_size"])
def test_networks_without_features_say_so(network):
    with pytest.raises(UserError, match=rf"{network.spec['name']} has no features of the LR image"):
        feature_maps(network, torch.rand(1, 3, 8, 8))
