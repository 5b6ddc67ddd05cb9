"""Patches over time: what did not change keeps its SR, what changed is computed anew, and nothing drifts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import build_sr
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.mask_policy import parse_policy
from models.masker import Masker
from models.patch_reuse import PatchReuse, ReuseOptions
from utils.errors import UserError

PATCH = 4


def front_end(halo: int | None = None) -> ConditionalSR:
    torch.manual_seed(0)
    quality = build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8})
    front = ConditionalSR(Masker(PATCH, 4), build_sr("espcn", 2, {"n_feats": 4}), quality, Execution(halo=halo)).eval()
    torch.nn.init.normal_(front.masker.logits.weight)
    return front


FRONT = front_end()


def frame(seed: int, height: int = 14, width: int = 18) -> torch.Tensor:
    """Whole grey levels in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, 3, height, width), generator=generator) / 255


def near(changed: list[tuple[int, int]], height: int, width: int, halo: int) -> torch.Tensor:
    """Patches whose window holds any of these pixels, by their coordinates."""
    grid = torch.zeros(-(-height // PATCH), -(-width // PATCH), dtype=torch.bool)
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            grid[row, column] = any(
                row * PATCH - halo <= y < (row + 1) * PATCH + halo
                and column * PATCH - halo <= x < (column + 1) * PATCH + halo
                for y, x in changed
            )
    return grid


@pytest.mark.parametrize("policy", ["learned", "budget=0.25", "all_fast", "all_quality", "edge=0.5"])
def test_a_still_video_is_that_of_full_processing(policy):
    reuse, lr, chosen = PatchReuse(FRONT, ReuseOptions(0, 100)), frame(0), parse_policy(policy)
    whole = FRONT.infer(lr, chosen)
    for index in range(4):
        found = reuse(lr.clone(), chosen)
        assert torch.equal(found.sr, whole.sr) and torch.equal(found.mask, whole.mask)
        assert reuse.kept.all() == (index > 0)
        found.sr.zero_()  # whoever gets a frame may write to it


@settings(max_examples=40)
@given(
    pixels=st.lists(st.tuples(st.integers(0, 13), st.integers(0, 17)), min_size=1, max_size=3),
    threshold=st.integers(0, 20), more=st.booleans(), policy=st.sampled_from(["all_quality", "all_fast"]),
)  # fmt: skip
def test_what_changed_is_computed_with_its_halo_and_nothing_else(pixels, threshold, more, policy):
    """With an exact halo the image then equals that of full processing everywhere, where changes count."""
    reuse, chosen = PatchReuse(FRONT, ReuseOptions(threshold, 100)), parse_policy(policy)
    lr = frame(1) * 200 / 255
    lr = (lr * 255).round() / 255
    reuse(lr, chosen)
    after = lr.clone()
    for y, x in pixels:
        after[0, 1, y, x] = lr[0, 1, y, x] + (threshold + more) / 255
    found = reuse(after, chosen)
    expected = near(pixels, 14, 18, reuse.halo) if more else torch.zeros_like(reuse.kept)
    assert torch.equal(~reuse.kept, expected)
    if more:
        assert torch.allclose(found.sr, FRONT.infer(after, chosen).sr, atol=1e-5)


def test_slow_changes_add_up_until_they_are_seen():
    reuse, chosen, lr = PatchReuse(FRONT, ReuseOptions(4, 1000)), parse_policy("all_fast"), frame(2) * 0.5
    lr = (lr * 255).round() / 255
    changed = []
    for step in range(12):
        reuse(lr + step / 255, chosen)
        changed.append(not bool(reuse.kept.any()))
    assert changed == [True, False, False, False, False, True, False, False, False, False, True, False]


def test_a_neighbour_that_is_computed_does_not_hide_slow_changes():
    """The window is compared with what this patch was made of, not with what its neighbours were made of later."""
    reuse, chosen, lr = (
        PatchReuse(front_end(halo=1), ReuseOptions(4, 1000)),
        parse_policy("all_quality"),
        frame(3) * 0.5,
    )
    lr = (lr * 255).round() / 255
    reuse.halo = 1
    reuse(lr, chosen)
    kept = []
    for step in range(1, 4):
        lr = lr.clone()
        lr[0, :, 5, 4] += 2 / 255  # in the halo of patch (1, 0), which drifts
        lr[0, :, 5, 6] += 50 / 255 * (-1) ** step  # deep in patch (1, 1), which is computed every time
        reuse(lr, chosen)
        kept.append((bool(reuse.kept[1, 0]), bool(reuse.kept[1, 1])))
    assert kept == [(True, False), (True, False), (False, False)]


def test_the_mask_says_how_each_patch_was_made():
    reuse, chosen, before = PatchReuse(FRONT, ReuseOptions(0, 100)), parse_policy("edge=0.5"), frame(4)
    after = before.clone()
    after[..., :6, :6] = 0.5  # without edges there, others would be chosen elsewhere
    old, new = (FRONT.infer(lr, chosen).mask[0, 0] for lr in (before, after))
    reuse(before, chosen)
    found = reuse(after, chosen)
    assert (old != new)[reuse.kept].any() and (old != new)[~reuse.kept].any()
    assert torch.equal(found.mask[0, 0], torch.where(reuse.kept, old, new))


def test_everything_is_refreshed_every_n_frames():
    reuse, chosen = PatchReuse(FRONT, ReuseOptions(255, 3)), parse_policy("budget=0.5")
    kept = []
    for seed in range(7):
        found = reuse(frame(seed), chosen)
        kept.append(bool(reuse.kept.all()))
        if not kept[-1]:
            assert torch.equal(found.sr, FRONT.infer(frame(seed), chosen).sr)
    assert kept == [False, True, True, False, True, True, False]


@pytest.mark.parametrize("policy", ["all_fast", "all_quality"])
def test_sizes_of_one_grid_are_not_taken_for_each_other(policy):
    """A folder of frames may hold 14x18 and 16x20 pixels, both of 4x5 patches."""
    reuse, chosen = PatchReuse(FRONT, ReuseOptions(0, 100)), parse_policy(policy)
    for size in ((14, 18), (16, 20), (13, 17)):
        for lr in (frame(0, *size), torch.zeros(1, 3, *size)):  # black is what lies beyond an image, too
            assert torch.allclose(reuse(lr, chosen).sr, FRONT.infer(lr, chosen).sr, atol=1e-5)


def test_another_size_or_video_begins_anew():
    reuse, chosen = PatchReuse(FRONT, ReuseOptions(255, 100)), parse_policy("all_fast")
    reuse(frame(0), chosen)
    assert reuse(frame(1, 9, 8), chosen).sr.shape == (1, 3, 18, 16) and not reuse.kept.any()
    reuse.reset()
    reuse(frame(2, 9, 8), chosen)
    assert not reuse.kept.any()


def test_only_changed_patches_are_run(monkeypatch):
    reuse, chosen, lr = PatchReuse(FRONT, ReuseOptions(0, 100)), parse_policy("all_quality"), frame(4, 64, 64)
    reuse(lr, chosen)
    runs = []
    original = ConditionalSR.quality_on_patches
    monkeypatch.setattr(
        ConditionalSR, "quality_on_patches",
        lambda self, lr, mask, canvas: runs.append(int(mask.sum())) or original(self, lr, mask, canvas),
    )  # fmt: skip
    after = lr.clone()
    after[..., 30, 30] = 1 - after[..., 30, 30]
    reuse(after, chosen)
    reuse(after, chosen)
    assert runs == [int(near([(30, 30)], 64, 64, reuse.halo).sum())] and runs[0] < 256


@pytest.mark.parametrize(
    ("arguments", "message"), [((-1, 3), "threshold"), ((256, 3), "threshold"), ((1, 0), "refresh")]
)
def test_options_out_of_range(arguments, message):
    with pytest.raises(UserError, match=message):
        ReuseOptions(*arguments)


def test_one_frame_at_a_time():
    with pytest.raises(ValueError, match="one frame at a time"):
        PatchReuse(FRONT, ReuseOptions())(torch.rand(2, 3, 8, 8), parse_policy("all_fast"))
