"""models/single_sr.py: one SR network everywhere, HR images, and the state dicts of both."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import build_sr
from models.build_front import build_front, shared_stem
from models.mask_policy import MaskPolicy
from models.single_sr import HRImages, SingleSR
from utils.errors import UserError

POLICY = MaskPolicy("learned")


def espcn() -> nn.Module:
    return build_sr("espcn", 2, {"n_feats": 8})


def test_the_state_dict_is_that_of_the_network_wherever_the_front_end_is():
    network, other = espcn(), espcn()
    front = SingleSR(network)
    assert list(front.state_dict()) == list(network.state_dict())
    around = nn.ModuleDict({"front": front, "more": nn.Linear(1, 1)})
    names = [f"front.{name}" for name in network.state_dict()] + ["more.weight", "more.bias"]
    assert list(around.state_dict()) == names
    copy = nn.ModuleDict({"front": SingleSR(other), "more": nn.Linear(1, 1)})
    copy.load_state_dict(around.state_dict())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())
    SingleSR(espcn()).load_state_dict(network.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*tail"):
        front.load_state_dict({name: x for name, x in network.state_dict().items() if "tail" not in name})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        front.load_state_dict(network.state_dict() | {"other": torch.zeros(1)})


def test_what_a_front_end_tells():
    network = espcn()
    front, lr = SingleSR(network).eval(), torch.rand(2, 3, 9, 12)
    output = front.infer(lr, POLICY)
    assert torch.equal(output.sr, network(lr).clamp(0, 1)) and output.mask is None
    assert torch.equal(front(lr).sr, output.sr) and front(lr).sr.requires_grad
    assert (front.scale, front.zoom, front.patch, front.sees_hr) == (2, 1, None, False)
    assert build_front(front.spec).spec == front.spec == network.spec
    parts = front.parameter_parts()
    assert list(parts) == ["sr/tail", "sr/body"]
    assert {id(p) for part in parts.values() for p in part} == {id(p) for p in network.parameters()}
    assert front.networks_run(9, 12, [0]) == [network] and front.macs(9, 12, 0) > 0


def test_what_is_fixed_stays_in_evaluation_mode():
    front = SingleSR(build_sr("srresnet", 2, {"n_blocks": 1, "n_feats": 4}))
    assert front.train().network.training
    front.requires_grad_(False)
    assert not front.train().network.training


def test_hr_images_are_shown_as_they_are():
    front, hr = HRImages(), torch.rand(1, 3, 8, 8)
    output = front.infer(hr, POLICY)
    assert torch.equal(output.sr, hr) and output.sr.data_ptr() != hr.data_ptr()
    assert (front.scale, front.zoom, front.sees_hr, front.state_dict()) == (1, 1, True, {})
    assert build_front(front.spec).spec == front.spec
    assert front.parameter_parts() == {} and front.macs(8, 8, 0) == 0


def test_zoom_comes_from_the_spec():
    front = build_front({"name": "bicubic", "args": {"scale": 2, "upscale": 3}})
    assert (front.scale, front.zoom) == (6, 3)


def test_a_network_without_a_stem_is_refused():
    fast = espcn()
    assert shared_stem(fast) is fast.features
    with pytest.raises(UserError, match="edsr has no layers to share; take espcn or fsrcnn"):
        shared_stem(build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 4}))


@pytest.mark.parametrize("front", [SingleSR(espcn()), HRImages()], ids=["sr", "hr"])
def test_there_is_no_execution_to_change(front):
    with pytest.raises(UserError, match="halo: this front end has no masker and runs on whole images"):
        front.with_execution(halo=2)
