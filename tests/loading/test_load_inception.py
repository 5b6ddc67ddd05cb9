"""The network of the FID comes from a file on this machine, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from loading.load_inception import FILE, load_inception
from tests.extras import needs
from utils.checkpoint import CheckpointError

pytestmark = needs("torch_fidelity")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file with random weights of InceptionV3."""
    from torch_fidelity import feature_extractor_inceptionv3 as library

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = library.FeatureExtractorInceptionV3("random", ["2048"])
    path = tmp_path_factory.mktemp("weights") / FILE
    torch.save(network.state_dict(), path)
    return path


def test_it_gives_features_of_images_of_any_size(weights: Path):
    network = load_inception(weights)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    (features,) = network(torch.randint(0, 256, (1, 3, 20, 31), dtype=torch.uint8))
    assert features.shape == (1, 2048) and features.isfinite().all()


def test_without_a_file_it_says_what_is_expected_where(tmp_path: Path):
    with pytest.raises(CheckpointError, match=rf"gone\.pth does not exist; FID needs .*{FILE} .* name it with --fid"):
        load_inception(tmp_path / "gone.pth")


class Harm:
    """Unpickled without care, it writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_other_files_are_refused_and_not_executed(tmp_path: Path):
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save({"fc.weight": Harm(tmp_path / "written")}, tmp_path / "harm.pth")
    for name in ("other.pth", "harm.pth"):
        with pytest.raises(CheckpointError, match=rf"{name} is not this network .*; FID needs"):
            load_inception(tmp_path / name)
    assert not (tmp_path / "written").exists()
