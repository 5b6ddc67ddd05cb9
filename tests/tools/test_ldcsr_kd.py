"""tools/ldcsr_kd.py: the network without diffusion from the weights of the whole."""

from __future__ import annotations

import pytest
import torch

from loading.load_sr import load_sr
from models import build_sr
from tests.extras import needs_generative
from tests.models.ldcsr.small import small
from tools.ldcsr_kd import main
from utils.checkpoint import load_network, save_network
from utils.errors import UserError

pytestmark = needs_generative


def test_condition_network_and_decoder_are_taken(tmp_path, capsys):
    network = small("ldcsr", 2.5)
    network.latent_scale.fill_(1.7)
    meta = {"stage": 2, "role": "sr_quality", "metrics": {"psnr/a": 1.0}, "epochs": 3, "seed": 0}
    file = tmp_path / "sr_quality_pretrained.pth"
    save_network(file, "sr", network.spec["name"], network.spec["args"], network.state_dict(), meta)
    assert main([str(file)]) == 0
    out = tmp_path / "sr_quality_pretrained_kd.pth"
    assert str(out) in capsys.readouterr().out
    part = load_sr(out)
    assert part.spec["name"] == "ldcsr_kd" and part.scale == 2.5 and load_network(out)["meta"]["metrics"] == {}
    lr = torch.rand(1, 3, 8, 8)
    up = network.interpolate(lr, (20, 20))
    with torch.no_grad():
        expected = network.autoencoder.decode(network.condition(2 * up - 1) / 1.7, lr, up)
        assert torch.equal(part(lr), expected)


def test_other_networks_have_none(tmp_path):
    network = build_sr("espcn", 2, {"n_feats": 4})
    save_network(tmp_path / "a.pth", "sr", "espcn", network.spec["args"], network.state_dict(), {})
    with pytest.raises(UserError, match="espcn has no ldcsr_kd"):
        main([str(tmp_path / "a.pth")])
