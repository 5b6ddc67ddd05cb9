"""models/capabilities.py: every network carries the record, and generic code needs nothing else of a new kind."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.sr_networks import SKIPPED
from deployment.cuda_graphs import GraphedNetwork
from deployment.prepare import InferencePreparation, prepare_front
from models import SR_NETWORKS, build_sr
from models.capabilities import WHOLE_SCALES, AnyScale, Capabilities, checked_scale
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.mask_policy import MaskPolicy
from models.masker import Masker
from models.single_sr import SingleSR
from models.tiling.whole import run_tiles, run_whole
from prediction.sr_inference import SRInference
from utils.errors import UserError

CPU = torch.device("cpu")
SMALL = {
    "edsr": {"n_blocks": 1, "n_feats": 8}, "srresnet": {"n_blocks": 1, "n_feats": 8}, "rdn": {"n_blocks": 1},
    "rcan": {"n_groups": 1, "n_blocks": 1}, "swinir": {"n_groups": 1}, "swinir_light": {"n_blocks": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in SR_NETWORKS if name not in SKIPPED])
def test_every_network_carries_the_record(name: str):
    args = {"n_blocks": 1, "n_feats": 8} if name.startswith("lm_") else SMALL.get(name, {})
    network = build_sr(name, 2, args)
    can = network.capabilities
    assert isinstance(can, Capabilities) and can.halo >= 0 and network.scale == 2
    assert can.takes_size == name.startswith("lm_") == can.samples == (can.coarse is not None)
    assert (can.scales, can.tiling) == ((AnyScale(1, 30), "own") if can.takes_size else (WHOLE_SCALES, can.tiling))
    assert can.traceable and can.as_quality and torch.bfloat16 in can.dtypes
    with pytest.raises(FrozenInstanceError):
        can.receptive_radius = 0
    with pytest.raises(UserError, match=rf"scale is {31}; use {can.scales if can.takes_size else 'one of 2, 3, 4'}"):
        build_sr(name, 31, args)


def test_records_that_contradict_themselves_are_refused():
    with pytest.raises(ValueError, match="cannot be exact; use 'overlap' or 'own'"):
        Capabilities(receptive_radius=None)
    with pytest.raises(UserError, match="no finite receptive field, so no exact halo; set the halo to a number"):
        _ = Capabilities(receptive_radius=None, tiling="overlap").halo


@pytest.mark.parametrize(
    ("scale", "scales", "valid"),
    [(2, (2, 4), True), (3, (2, 4), False), (2.5, AnyScale(1, 4), True), (4.5, AnyScale(1, 4), False),
     ("2", AnyScale(1, 4), False), (float("nan"), AnyScale(), False), (True, AnyScale(), False)],
)  # fmt: skip
def test_scales(scale, scales, valid: bool):
    if valid:
        assert checked_scale(nn.Identity(), scale, scales) == scale
    else:
        with pytest.raises(UserError, match="Identity: scale is"):
            checked_scale(nn.Identity(), scale, scales)


# ------------------------------------------------------------------------------------------- a network of another kind


class Diffusion(nn.Module):
    """As one of latent diffusion: several steps, drawn noise, tiles of its own, fp32 only, x4."""

    scale, tail = 4, None
    spec = {"name": "diffusion", "args": {"scale": 4}}  # noqa: RUF012
    capabilities = Capabilities(
        receptive_radius=None, local_receptive_radius=3, scales=(4,), tiling="own", size_multiple=8, stochastic=True,
        steps=2, dtypes=(torch.float32,),
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.calls = []

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        self.calls.append(tuple(lr.shape[-2:]))
        x = lr
        for _ in range(self.capabilities.steps):
            if float(x.mean()) < 0:  # a path that depends on values cannot be traced or recorded
                break
            x = 0.5 * (x + self.conv(x) + 0.1 * torch.rand_like(x))
        return F.interpolate(x, scale_factor=4)

    def tiled(self, lr: torch.Tensor, size: tuple[int, int], tile: int, halo: int) -> torch.Tensor:
        self.calls.append((tile, halo))
        return F.interpolate(lr, size)


def test_generic_code_runs_it_whole_in_tiles_and_upscaled():
    network, lr = Diffusion().eval(), torch.rand(2, 3, 40, 24)
    with torch.no_grad():
        assert run_whole(network, lr, 1 << 18).shape == (2, 3, 160, 96) and network.calls == [(40, 24)]
        network.calls.clear()
        assert run_whole(network, lr, 400).shape == (2, 3, 160, 96), "too large for one call"
        assert run_tiles(network, lr, (160, 96), 16).shape == (2, 3, 160, 96)
        assert network.calls == [(16, 3), (16, 3), (16, 3)]
        assert SRInference(CPU, tile=16)(network, lr[:1], (160, 96)).shape == (1, 3, 160, 96)
    with pytest.raises(UserError, match="Diffusion does not compute in bf16; use fp32"):
        SRInference(CPU, "bf16")(network, lr[:1], (160, 96))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_generic_code_runs_it_as_sr_quality_and_prepares_it(dtype: torch.dtype):
    front = ConditionalSR(Masker(8, 4), build_sr("espcn", 4, {"n_feats": 8}), Diffusion()).eval()
    prepared, lr = prepare_front(front, CPU, dtype), torch.rand(2, 3, 32, 40)
    for one in (front, prepared):
        output = one.infer(lr, MaskPolicy("edge", 0.1))
        assert output.sr.shape == (2, 3, 128, 160) and output.mask.sum() == 4
    expected = "eager, float32 (not made for bfloat16)" if dtype == torch.bfloat16 else "eager, float32 (several steps"
    assert prepared.sr_quality.how.startswith(expected)
    assert prepared.sr_quality.network.calls[-1][0] < 32, "on patches with their halo"


def test_what_cannot_run_on_patches_is_refused_as_sr_quality():
    network = Diffusion()
    network.capabilities = replace(network.capabilities, as_quality=False)
    with pytest.raises(UserError, match="Diffusion cannot run on patches; take another network as sr_quality"):
        ConditionalSR(Masker(8, 4), build_sr("espcn", 4), network)


# -------------------------------------------------------------------------------------------------- prepared networks


def test_a_prepared_network_is_asked_like_the_original():
    network, preparation = build_sr("edsr", 2, SMALL["edsr"]).eval(), InferencePreparation(CPU, torch.bfloat16)
    prepared = preparation.network(network)
    assert (prepared.scale, prepared.spec) == (2, network.spec) and prepared.capabilities == network.capabilities
    assert not set(map(id, prepared.parameters())) & set(map(id, network.parameters()))
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = prepared.nothing_of_the_kind
    graphed = GraphedNetwork(network)
    assert graphed.capabilities is network.capabilities and graphed.spec == network.spec
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = graphed.nothing_of_the_kind


def test_an_arbitrary_scale_network_is_tiled_by_its_copy():
    network = build_sr("lm_lte", 2, {"n_blocks": 1, "n_feats": 8}).eval()
    front, lr = SingleSR(network).eval(), torch.rand(1, 3, 40, 30)
    prepared = front.prepared(InferencePreparation(CPU, torch.float32))
    with torch.no_grad():
        parts = run_whole(prepared.network, lr, 300)
        sized = prepared.network(lr, (90, 70))
    torch.testing.assert_close(parts, network(lr).detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(sized, network(lr, (90, 70)).detach(), atol=1e-5, rtol=0)


def test_execution_is_handed_in_and_shared_weights_stay_shared():
    front = ConditionalSR(Masker(8, 4), build_sr("espcn", 2), build_sr("edsr", 2, SMALL["edsr"])).eval()
    other = front.with_execution(halo=1)
    assert (front.execution, other.execution) == (Execution(), Execution(halo=1)) and not other.training
    assert all(one is two for one, two in zip(front.parameters(), other.parameters(), strict=True))
    with pytest.raises(FrozenInstanceError):
        other.execution.halo = 2
