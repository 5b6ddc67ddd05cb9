"""SR on a number of patches that is settled beforehand gives what SR on tiles gives."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import build_sr
from models.mask_policy import BestPatches, GivenMask, MaskPolicy, parse_policy
from models.tiling.counted import PatchNumbers, chosen_patches, run_counted, settle_numbers
from models.tiling.run_patches import TileOptions, run_on_tiles
from models.tiling.tile_plan import Geometry

torch.manual_seed(0)
NETWORK = build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 4}).eval()


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 3), st.integers(8, 40), st.integers(8, 40)),
    share=st.sampled_from([0.05, 0.2, 0.5, 0.9, 1.0]),
    halo=st.sampled_from([None, 2]),
    exact=st.booleans(),
    max_pixels=st.sampled_from([300, 1 << 18]),
)
def test_counted_is_what_tiles_are(seed, size, share, halo, exact, max_pixels):
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = size
    lr = torch.rand(batch, 3, height, width, generator=generator)
    mask = torch.rand(batch, -(-height // 8), -(-width // 8), generator=generator) < share
    canvas = torch.rand(batch, 3, 2 * height, 2 * width, generator=generator)
    geometry = Geometry(height, width, 8, NETWORK.capabilities.halo if halo is None else halo)
    numbers = settle_numbers(mask.flatten(1).sum(1).tolist(), geometry, exact)
    options = TileOptions(overhead=0.0, merge=False, max_pixels=max_pixels)
    with torch.no_grad():
        expected = run_on_tiles(NETWORK, lr, mask, 8, halo, canvas.clone(), options)
        got = run_counted(NETWORK, lr, mask, numbers, 8, halo, canvas.clone(), max_pixels)
    assert got.shape == expected.shape and (got - expected).abs().max() < 1e-5


def test_chosen_patches_come_in_reading_order_and_the_last_is_repeated():
    mask = torch.tensor([[[False, True], [False, False]], [[True, False], [False, True]]])
    chosen = [[0, 0, 1], [1, 0, 0], [1, 1, 1]]
    assert chosen_patches(mask, 3).tolist() == chosen
    assert chosen_patches(mask, 5).tolist() == [*chosen, [1, 1, 1], [1, 1, 1]]


def test_windows_are_rounded_up_to_few_numbers():
    geometry = Geometry(64, 64, 8, 0)
    found = {settle_numbers([count], geometry, exact=False).windows for count in range(1, 64)}
    assert found == {4, 8, 16, 24, 32, 48, 64}
    assert settle_numbers([0], geometry, exact=False) == PatchNumbers((False,), 0, False)
    assert settle_numbers([64, 64], geometry) == PatchNumbers((True, True), 0, True)
    assert settle_numbers([64, 3], geometry) == PatchNumbers((True, False), 3, False)


def test_policies_tell_their_number_where_they_can():
    lr, logits = torch.rand(1, 3, 32, 48), torch.randn(1, 2, 4, 6)
    for policy in (MaskPolicy("budget", 0.3), MaskPolicy("edge", 0.9), MaskPolicy("random", 0.01), BestPatches(5)):
        assert policy.selects(24, 24) == policy.select(lr, logits, 8).sum()
    assert [parse_policy(text).selects(24, 20) for text in ("all_fast", "all_quality")] == [0, 24]
    unknown = (parse_policy("learned"), parse_policy("threshold=0.5"), GivenMask(torch.ones(1, 4, 6, dtype=torch.bool)))
    assert all(policy.selects(24, 24) is None for policy in unknown)
