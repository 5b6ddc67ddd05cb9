"""Backbones of a discriminator from files in the layouts of timm and of open_clip."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from loading.load_backbone import load_backbone
from models.one_step_diffusion.discriminator import timm_backbone
from tests.extras import needs_generative
from utils.checkpoint import CheckpointError

pytestmark = needs_generative


def test_without_a_file_it_is_random():
    assert load_backbone("convnext_atto", None).vector_width == 320


@pytest.mark.parametrize("layout", ["timm", "open_clip"])
def test_both_layouts_are_read(tmp_path, layout):
    backbone, images = timm_backbone("convnext_atto", embedding=24), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        backbone.network.head.fc.bias.zero_()  # CLIP's projection has none
    state = backbone.network.state_dict()
    if layout == "open_clip":
        state = {f"visual.trunk.{key}": value for key, value in state.items() if not key.startswith("head.fc.")} | {
            "visual.head.proj.weight": backbone.network.head.fc.weight.detach(),
            "text.transformer.weight": torch.zeros(2),
        }
    save_file(state, tmp_path / "weights.safetensors")
    found = load_backbone("convnext_atto", str(tmp_path / "weights.safetensors"))
    assert found.vector_width == 24
    for one, other in zip(found(images), backbone(images), strict=True):
        assert torch.equal(one, other)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_backbone("convnext_atto", str(tmp_path / "none.safetensors"))
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"not the weights of convnext_atto: .* name the right backbone"):
        load_backbone("convnext_atto", str(tmp_path / "other.safetensors"))
