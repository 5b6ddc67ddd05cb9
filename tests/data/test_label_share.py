"""Label shares: nested, counted, deterministic, and no withheld label stays behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.data_spec import DataSetError, Record
from data.label_share import label_counts, share_labels
from data.sampler import EpochBatchSampler


def make_records(count: int) -> list[Record]:
    box = np.full((1, 4), 0.5, np.float32)
    return [Record(Path(f"{i:03}.png"), Path(f"{i:03}.txt"), 8, 8, np.array([i]), box) for i in range(count)]


def names(records: list[Record]) -> set[str]:
    return {record.image.stem for record in records if record.labelled}


@given(count=st.integers(1, 90), shares=st.tuples(st.floats(1e-6, 1), st.floats(1e-6, 1)), seed=st.integers(0, 99))
def test_smaller_shares_are_subsets_and_counts_are_exact(count, shares, seed):
    records = make_records(count)
    small, large = (share_labels(records, share, seed, keep_unlabelled=False) for share in sorted(shares))
    assert names(small) <= names(large)
    assert [len(small), len(large)] == [max(1, round(share * count)) for share in sorted(shares)]
    again = share_labels(records, min(shares), seed, keep_unlabelled=False)
    assert [record.image for record in again] == [record.image for record in small] == sorted(r.image for r in small)


@given(count=st.integers(1, 60), share=st.floats(1e-6, 1))
def test_others_stay_as_images_without_labels(count, share):
    records = make_records(count)
    shared, alone = (share_labels(records, share, 0, keep_unlabelled=keep) for keep in (True, False))
    assert [record.image for record in shared] == [record.image for record in records]
    assert names(shared) == names(alone)
    for record in shared:
        assert len(record.boxes) == len(record.classes) == int(record.labelled)
        assert record.boxes.shape[1] == 4 and record.boxes.dtype == np.float32


def test_all_labels_are_the_records_themselves():
    records = make_records(5)
    assert share_labels(records, 1.0, 3, keep_unlabelled=True) == records


@pytest.mark.parametrize("seed", range(4))
def test_labelled_images_are_spread_over_every_epoch(seed):
    records = share_labels(make_records(400), 0.1, seed, keep_unlabelled=True)
    for epoch in range(6):
        order = EpochBatchSampler(400, 40, 40, seed, epoch).order().reshape(10, 40)
        counts = [sum(records[i].labelled for i in batch) for batch in order]
        assert sum(counts) == 40 and max(counts) <= 12, (epoch, counts)


def test_the_seed_decides():
    records = make_records(40)
    assert len({frozenset(names(share_labels(records, 0.2, seed, False))) for seed in range(8)}) == 8


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_an_image_listed_twice_is_one_image(share):
    records = make_records(10)
    once, twice = (share_labels(rows, share, 0, False) for rows in (records, sorted(2 * records, key=str)))
    assert names(once) == names(twice) and len(twice) == 2 * len(once)


def with_empty(full: int, empty: int) -> list[Record]:
    """Records of which the last ones are images without objects."""
    records = make_records(full + empty)
    return [*records[:full], *(replace(r, classes=r.classes[:0], boxes=r.boxes[:0]) for r in records[full:])]


def test_images_without_objects_count_as_labelled_and_are_told():
    records = with_empty(6, 2)
    assert label_counts(records) == "8 training images, 8 of them with labels (2 of these without an object)"
    shared = share_labels(records, 0.5, 0, keep_unlabelled=True)
    empty = sum(len(record.classes) == 0 for record in shared if record.labelled)
    assert sum(record.labelled for record in shared) == 4
    told = f" ({empty} of these without an object)" if empty else ""
    assert label_counts(shared) == f"8 training images, 4 of them with labels{told}"
    assert label_counts(make_records(3)) == "3 training images, 3 of them with labels"


@given(full=st.integers(1, 20), empty=st.integers(0, 20), share=st.floats(1e-6, 1), seed=st.integers(0, 99))
def test_a_share_without_any_object_is_refused(full, empty, share, seed):
    records = with_empty(full, empty)
    try:
        shared = share_labels(records, share, seed, keep_unlabelled=True)
    except DataSetError as error:
        assert empty >= max(1, round(share * len(records)))
        assert f"({empty} of all have none); raise data.label_share, or choose others by data.label_seed" in str(error)
    else:
        assert sum(len(record.classes) for record in shared) > 0


def test_a_set_without_objects_may_still_serve_what_needs_no_labels():
    records = with_empty(0, 5)
    assert len(share_labels(records, 0.4, 0, keep_unlabelled=True)) == 5


def test_some_draw_is_refused():
    refused = 0
    for seed in range(20):
        try:
            share_labels(with_empty(1, 9), 0.1, seed, keep_unlabelled=False)
        except DataSetError:
            refused += 1
    assert 10 < refused < 20
