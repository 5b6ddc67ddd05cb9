"""An SR_Quality that draws noise, in stage 3: frozen, and with the halo that it asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.schema import NetworkConfig
from configs.stage3_schema import MaskerConfig, Stage3Config
from loading.systems import configured_front
from utils.errors import UserError

SMALL = {"channels": 8, "mult": "1", "n_blocks": 1, "swin_depth": 1, "swin_dim": 32, "timesteps": 2, "steps": 2}
CONFIG = Stage3Config(
    sr_fast=NetworkConfig("bicubic"), sr_quality=NetworkConfig("difiisr_dwt", SMALL), freeze=["sr_quality"]
)


def test_it_is_not_trained_jointly():
    with pytest.raises(UserError, match=r"sr_quality difiisr_dwt draws noise.* add sr_quality to freeze"):
        configured_front(replace(CONFIG, freeze=[]))


def test_auto_is_its_own_halo_and_a_number_is_kept():
    assert configured_front(CONFIG).execution.halo is None
    assert configured_front(replace(CONFIG, masker=MaskerConfig(halo=9))).execution.halo == 9
    other = replace(CONFIG, sr_quality=NetworkConfig("espcn"), freeze=[])
    assert configured_front(other).execution.halo == 2
