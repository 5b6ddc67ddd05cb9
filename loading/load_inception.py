"""InceptionV3 of the FID from the weight file that the user names; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from utils.checkpoint import CheckpointError
from utils.extras import require

FILE = "weights-inception-2015-12-05-6726825d.pth"
WHERE = f"FID needs the InceptionV3 of torch-fidelity, {FILE} of its release v0.2.0 (91 MB): put it on this machine"
LAYER = "2048"  # the last pooling, from which the FID is defined


def load_inception(file: str | Path) -> nn.Module:
    """InceptionV3 on the CPU: uint8 (B, 3, H, W) of any size -> ((B, 2048),) features, in evaluation mode.

    Args:
        file: the state dict that torch-fidelity publishes, converted from the network of the FID's authors; another
            InceptionV3, such as torchvision's, gives other numbers.

    Raises:
        CheckpointError: a file that is missing, damaged, or no state dict of this network.
        UserError: torch-fidelity is not installed.
    """
    library = require("torch_fidelity.feature_extractor_inceptionv3", "generative", "FID")
    path = Path(file)
    if not path.is_file():
        raise CheckpointError(f"fid: {path} does not exist; {WHERE}, and name it with --fid")
    try:
        # The library unpickles whatever a file holds; one that passes here holds tensors alone.
        torch.load(path, map_location="cpu", weights_only=True)
        return library.FeatureExtractorInceptionV3("inception-v3-compat", [LAYER], str(path))
    except Exception as error:  # damaged files fail in any way
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"fid: {path} is not this network ({type(error).__name__}: {reason}); {WHERE}") from error
