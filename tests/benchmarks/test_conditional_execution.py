"""The execution benchmark measures what it says, on a network that is quick."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import conditional_execution

KEYS = {
    "net", "scale", "lr", "batch", "r", "mask", "dtype", "strategy", "eta", "ratio_to_quality", "max_abs_diff",
    "psnr_loss_db",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("benchmark")
    tiny = {"edsr_8x32": ("edsr", {"n_blocks": 1, "n_feats": 8, "tail": "single"})}
    argv = ["--json", str(folder / "rows.json"), "--page", str(folder / "page.md"), "--nets", "edsr_8x32"]
    argv += ["--scales", "2", "--lr", "80x64", "--batches", "2", "--dtypes", "fp32", "--rounds", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditional_execution, "NETWORKS", tiny)
        assert conditional_execution.main(argv) == 0
    assert "eta auto" in (folder / "page.md").read_text()
    return json.loads((folder / "rows.json").read_text())["rows"]


def test_every_setting_has_every_strategy(rows):
    assert all(row.keys() >= KEYS for row in rows)
    assert {(row["r"], row["mask"]) for row in rows} == {
        (0.0, "any"), (1.0, "any"), *((share, kind) for share in (0.1, 0.25, 0.5) for kind in ("random", "clustered")),
    }  # fmt: skip
    assert len(rows) == 8 * 5 and all(row["eta"] > 0 and row["ratio_to_quality"] > 0 for row in rows)


def test_ways_that_are_exact_equal_dense_fusion_and_short_halos_differ(rows):
    worst = {}
    for row in rows:
        worst[row["strategy"]] = max(worst.get(row["strategy"], 0), row["max_abs_diff"])
    assert max(worst[name] for name in ("exact", "compute_all", "naive_tiles")) <= 1e-5
    assert worst["auto"] > 1e-5 and worst["patch_loop"] > 1e-5


@pytest.mark.parametrize("kind", conditional_execution.MASKS)
def test_masks_keep_the_share_in_every_image_and_clusters_hold_together(kind):
    mask = conditional_execution.draw_mask(np.random.default_rng(0), (3, 8, 10), 0.25, kind).numpy()
    assert mask.sum((1, 2)).tolist() == [20, 20, 20]
    pairs = (mask[:, 1:] & mask[:, :-1]).sum() + (mask[:, :, 1:] & mask[:, :, :-1]).sum()
    assert pairs > 60 if kind == "clustered" else pairs < 50
