"""Drawing: right places, right sizes, inputs left alone, clear refusals."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.overlay import KEPT_COLOUR, class_colour, detection_panel, draw_boxes, enlarge, panel, shade_mask

NAMES = ("car", "person")


def grey(height: int = 64, width: int = 96, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_box_is_drawn_where_it_is():
    image = grey()
    boxes = np.array([[20, 30, 60, 50, np.nan, 1]])
    drawn = draw_boxes(image, boxes, NAMES, colour=(255, 0, 0))
    for y, x in ((50, 20), (50, 60), (40, 60), (50, 40)):
        assert tuple(drawn[y, x]) == (255, 0, 0)
    assert tuple(drawn[40, 40]) == (100, 100, 100), "the inside stays visible"
    assert (image == 100).all(), "the input was written to"


def test_labels_scores_and_width_as_asked_for():
    boxes = np.array([[20.0, 30, 60, 50, 0.5, 1]])
    bare = draw_boxes(grey(), boxes, NAMES, labels=False, scores=False)
    assert (bare[:29] == 100).all() and not (draw_boxes(grey(), boxes, NAMES)[:29] == 100).all()
    changed = [
        (draw_boxes(grey(), boxes, NAMES, **kind) != grey()).any(2).sum()
        for kind in (
            {},
            {"scores": False},
            {"labels": False, "scores": False},
            {"line_width": 7, "labels": False, "scores": False},
        )
    ]
    assert changed[2] < changed[1] < changed[0] and changed[3] > 2 * changed[2]


def test_every_class_has_its_colour():
    assert len({class_colour(index) for index in range(20)}) == 20
    drawn = draw_boxes(grey(), np.array([[10.0, 30, 40, 50, 0.9, 0], [50, 30, 80, 50, 0.8, 1]]), NAMES)
    assert tuple(drawn[50, 20]) == class_colour(0)
    assert tuple(drawn[50, 70]) == class_colour(1)


def test_no_boxes_changes_nothing():
    assert np.array_equal(draw_boxes(grey(), np.zeros((0, 6)), NAMES), grey())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.tuples(*[st.floats(-100, 200)] * 4, st.floats(0, 1), st.integers(0, 5)), max_size=5),
)
def test_any_box_on_any_image(height: int, width: int, boxes: list):
    image = grey(height, width)
    drawn = draw_boxes(image, np.array(boxes, float).reshape(-1, 6), ("a", "µ-Träger"))
    assert drawn.shape == image.shape and drawn.dtype == np.uint8


def test_box_of_nan_is_left_out():
    assert np.array_equal(draw_boxes(grey(), np.array([[np.nan, 0, 5, 5, 1, 0]]), NAMES), grey())


def test_mask_tints_kept_patches_only():
    image = grey(20, 24)
    mask = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]])
    shaded = shade_mask(image, mask, 8)
    assert shaded[4, 4, 0] > shaded[4, 4, 2] + 20, "kept patches are tinted"
    assert tuple(shaded[0, 4]) == KEPT_COLOUR and tuple(shaded[15, 20]) == KEPT_COLOUR, "and outlined"
    assert tuple(shaded[4, 12]) == (75, 75, 75), "the others are darker and keep their hue"
    assert (image == 100).all()
    assert (shade_mask(image, np.zeros((3, 3)), 8) == 75).all()


def test_panel_places_images_side_by_side():
    left, right = grey(64, 64, 10), grey(32, 48, 200)
    joined = panel([left, right], ["LR", "SR"])
    assert joined.dtype == np.uint8
    assert (joined[-64:, :64] == 10).all()
    assert (joined[-64:, -96:] == 200).all(), "the smaller image is enlarged to the same height"
    assert joined.shape[0] > 64, "titles have room"
    assert joined[:-64].max() > 200, "titles are written"


def test_enlarge_repeats_pixels():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large, factor = enlarge(image, 5)
    assert factor == 3 and large.shape == (6, 6, 3)
    assert np.array_equal(large[::3, ::3], image)
    assert enlarge(image, 1)[1] == 1


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: draw_boxes(grey().astype(np.float32), np.zeros((0, 6)), NAMES), "uint8"),
        (lambda: draw_boxes(grey()[..., 0], np.zeros((0, 6)), NAMES), "RGB"),
        (lambda: draw_boxes(grey(), np.zeros((2, 4)), NAMES), r"expected \(n, 6\)"),
        (lambda: shade_mask(grey(20, 20), np.zeros((2, 2)), 8), "3x3 grid"),
        (lambda: panel([grey()], []), "one title per image"),
        (lambda: panel([grey(0, 4)], ["a"]), "empty"),
    ],
)
def test_wrong_input_is_refused(call, words: str):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_mask_needs_the_side_of_its_patches():
    lr, sr = np.zeros((8, 8, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="patch is missing"):
        detection_panel(lr, sr, np.zeros((0, 6)), ["a"], mask=np.ones((2, 2)))


@pytest.mark.skipif(not hasattr(cv2, "FontFace"), reason="OpenCV 4 has no font with other letters")
@pytest.mark.parametrize("names", [("汽车", "电容"), ("Größe", "Grüße"), ("жук", "жак")])
def test_class_names_of_other_scripts_are_written_and_lie_on_their_ground(names):
    """Two names of equal length differ in the picture, so they are not question marks."""
    image, box = np.full((120, 200, 3), 90, np.uint8), np.array([[20, 60, 120, 100, 0.5, 0]])
    first, second = (draw_boxes(image, box, [name]) for name in names)
    marks = draw_boxes(image, box, ["?" * len(names[0])])
    assert (first != second).any() and (first != marks).any()
    assert (first[:40] == image[:40]).all()  # above the ground of the label
    changed = (first[:60] != image[:60]).any(-1)
    assert changed.any() and np.ptp(np.argwhere(changed), axis=0).prod() <= changed.sum() * 1.2  # one filled rectangle
