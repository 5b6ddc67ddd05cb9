"""The generative systems in tiny form on the simulated device: no mixed devices, and the CPU's images."""

from __future__ import annotations

import pytest
import torch

from deployment.prepare import prepare_front
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.mask_policy import parse_policy
from models.masker import Masker
from tests.extras import needs
from tests.models.ldcsr.small import DECODER, WHOLE
from tests.simulated_cuda.systems import ARGS, image

NETWORKS = {
    "ldcsr": WHOLE,
    "ldcsr_kd": DECODER,
    "difiisr_dwt": {
        "channels": 8,
        "mult": "1-2",
        "n_blocks": 1,
        "swin_depth": 2,
        "swin_dim": 32,
        "window": 2,
        "steps": 2,
    },
    "one_step_diffusion": {"channels": 16, "cross": 16, "vae_channels": 8},
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ldcsr", marks=pytest.mark.slow),
        "ldcsr_kd",
        "difiisr_dwt",
        pytest.param("one_step_diffusion", marks=[needs("diffusers"), pytest.mark.slow]),
    ],
)
def test_as_sr_quality(cuda, name):
    torch.manual_seed(0)
    quality = build_sr(name, 4, NETWORKS[name]).eval()
    front = ConditionalSR(Masker(16), build_sr("espcn", 4, ARGS["espcn"]), quality, Execution()).eval()
    lr, policy = image(1, 32, 32), parse_policy("budget=0.25")
    expected = front.infer(lr, policy)
    prepared = prepare_front(front, torch.device("cuda"), torch.float32)
    for _ in range(2):
        output = prepared.infer(lr.cuda(), policy)
    assert torch.equal(output.mask.cpu(), expected.mask)
    assert (output.sr.cpu() - expected.sr).abs().max() < 1e-3 and not cuda.broken
