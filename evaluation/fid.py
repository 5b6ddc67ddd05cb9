"""Fréchet inception distance between two sets of images (Heusel et al. 2017, arXiv:1706.08500), by torch-fidelity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from utils.extras import require

LEAST_IMAGES = 2  # for a covariance


@torch.no_grad()
def inception_features(inception: nn.Module, image: np.ndarray) -> Tensor:
    """Features (C,) on the CPU of a whole image, uint8 (H, W, 3), as it is: no border, no compression."""
    device = next(inception.parameters()).device
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device)
    return inception(planes)[0][0].float().cpu()


def frechet_distance(features: list[Tensor], references: list[Tensor]) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the means m and covariances S of two sets of features (C,).

    It depends on the number of images, so it is only comparable between sets of one size.

    Raises:
        UserError: torch-fidelity is not installed.
    """
    library = require("torch_fidelity.metric_fid", "generative", "FID")
    one, other = (library.fid_features_to_statistics(torch.stack(found)) for found in (features, references))
    return library.fid_statistics_to_metric(one, other, verbose=False)[library.KEY_METRIC_FID]
