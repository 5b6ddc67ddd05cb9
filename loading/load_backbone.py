"""The frozen backbone of a discriminator: random, or with weights from a file that the user names."""

from __future__ import annotations

from pathlib import Path

from loading.state_dict_file import read_state_dict
from models.one_step_diffusion.discriminator import ConvNeXtBackbone, timm_backbone
from utils.checkpoint import CheckpointError

TRUNK, PROJECTION = "visual.trunk.", "visual.head.proj.weight"  # of open_clip's image tower


def load_backbone(name: str, file: str | None) -> ConvNeXtBackbone:
    """ConvNeXt by timm's name, such as convnext_atto or convnext_xxlarge, fixed, in evaluation mode.

    Args:
        name: of timm.
        file: weights in the layout of timm or of open_clip (CLIP's image tower); None leaves them random.

    Raises:
        CheckpointError: missing, damaged, or not the weights of this network.
    """
    if file is None:
        return timm_backbone(name)
    state = read_state_dict(Path(file)).weights
    if PROJECTION in state:
        projection = state[PROJECTION]
        state = {key.removeprefix(TRUNK): value for key, value in state.items() if key.startswith(TRUNK)}
        state |= {"head.fc.weight": projection, "head.fc.bias": projection.new_zeros(len(projection))}
    backbone = timm_backbone(name, len(state["head.fc.weight"]) if "head.fc.weight" in state else 0)
    own = backbone.network.state_dict()
    missing = [key for key in own if key not in state or state[key].shape != own[key].shape]
    if missing:
        raise CheckpointError(
            f"{file}: not the weights of {name}: {len(missing)} of {len(own)} tensors are missing or of another shape, "
            f"such as {missing[0]}; name the right backbone, or another file"
        )
    backbone.network.load_state_dict({key: state[key] for key in own})
    return backbone
