"""The row of the sahi package: its boxes are those of our detector in its slices, merged as it does."""

from __future__ import annotations

import pytest
import torch

from evaluation.sahi_method import SahiMethod
from models.mask_policy import MaskPolicy
from models.sliced_detection import SlicedDetector, Slicer
from tests.extras import needs
from tests.models.test_sliced_detection import BrightObjects
from utils.extras import MissingExtra

LEARNED = MaskPolicy("learned")


class Named(BrightObjects):
    names = ("spot",)


@needs("sahi")
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("conf", [0.25, 0.01])
def test_finds_what_our_own_slices_find(full: bool, conf: float):
    """Objects that a slice holds whole and that lie apart: nothing for two ways of merging to differ in."""
    lr = torch.zeros(2, 3, 36, 48)
    for image, (y, x) in enumerate([(3, 4), (26, 38)]):
        lr[image, :, y : y + 5, x : x + 5] = 1.0
    slicer, detector = Slicer(2, 2, 2, 0.3, full), Named((1.0,))
    boxes, output = SahiMethod(slicer, detector).predict(lr, LEARNED, conf, 0.7, 300)
    assert output is None and {shape[2:] for shape in detector.seen} == {(72, 96)}, "enlarged to the whole canvas"
    assert sorted(shape[0] for shape in detector.seen) == ([1, 1, 4, 4] if full else [4, 4]), "slices in one call"
    own, _ = SlicedDetector(slicer, Named((1.0,))).predict(lr, LEARNED, conf, 0.7, 300)
    for theirs, ours in zip(boxes, own, strict=True):
        assert len(theirs) == len(ours) == 1
        torch.testing.assert_close(theirs[0, 5], ours[0, 5])
        assert (theirs[0, :4] - ours[0, :4]).abs().max() <= 2.1, "merged boxes are joined: the union of what slices saw"


@needs("sahi")
def test_nothing_and_most():
    method = SahiMethod(Slicer(2, 2, 2, 0.2, True), Named((1.0, 0.5)))
    assert method.predict(torch.zeros(1, 3, 32, 32), LEARNED)[0][0].shape == (0, 6)
    lr = torch.zeros(1, 3, 32, 32)
    lr[..., 2:8, 2:8] = 1.0
    lr[:, 0, 20:24, 20:24] = 0.5
    assert len(method.predict(lr, LEARNED)[0][0]) == 2 and len(method.predict(lr, LEARNED, max_det=1)[0][0]) == 1
    assert method.detector_inputs(32, 32) == 5 and method.input_size(32, 32) == (64, 64)


def test_missing_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sahi.predict", None)
    with pytest.raises(MissingExtra, match=r"the row of sahi needs sahi\.predict .* requirements-integrations\.txt"):
        SahiMethod(Slicer(2, 2, 2, 0.2, True), Named(()))
