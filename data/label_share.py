"""Training with few labels: only a share of the images keeps them.

As in Ultralytics, an image with an empty label file, or without one, has no objects; a detector learns from it too. It
counts as labelled: who labels a random share of the images meets such ones. The printed counts say how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.data_spec import DataSetError, Record


def share_labels(records: Sequence[Record], share: float, seed: int, keep_unlabelled: bool) -> list[Record]:
    """Withhold the labels of all images but a random share, at least of one image.

    A pure function of the arguments. Shares are nested: with one seed, the images of a smaller share are among those of
    a larger one. An image that is listed twice is one image.

    Args:
        records: images and labels of the training split.
        share: share of the images whose labels are kept, in (0, 1].
        seed: of the draw.
        keep_unlabelled: keep the other images, with `labelled` false and without boxes; else leave them out.

    Returns:
        Records in the order in which they came.

    Raises:
        DataSetError: there are objects, but none in the images that keep their labels.
    """
    images = sorted({record.image for record in records})
    count = max(1, round(share * len(images)))
    # No epoch has this number: the sampler's order of (seed, epoch) would show all labelled images at once.
    order = np.random.default_rng((seed, 2**32 - 1)).permutation(len(images))
    chosen: set[Path] = {images[i] for i in order[:count]}
    kept = [record if record.image in chosen else _withhold(record) for record in records]
    if not any(len(record.classes) for record in kept) and any(len(record.classes) for record in records):
        empty = len({record.image for record in records if len(record.classes) == 0})
        raise DataSetError(
            f"data.label_share {share:g}: no object in the {count} of {len(images)} images that keep their labels "
            f"({empty} of all have none); raise data.label_share, or choose others by data.label_seed"
        )
    return kept if keep_unlabelled else [record for record in kept if record.labelled]


def label_counts(records: Sequence[Record]) -> str:
    """ "480 training images, 96 of them with labels (7 of these without an object)"."""
    labelled = [record for record in records if record.labelled]
    empty = sum(len(record.classes) == 0 for record in labelled)
    text = f"{len(records)} training images, {len(labelled)} of them with labels"
    return f"{text} ({empty} of these without an object)" if empty else text


def _withhold(record: Record) -> Record:
    return replace(record, classes=record.classes[:0], boxes=record.boxes[:0], labelled=False)
