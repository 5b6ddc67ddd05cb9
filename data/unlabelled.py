"""Pictures without labels, as records of a detection data set; label files that lie beside them are not looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from data.data_spec import LARGEST_LOSS, DataSetError, Record
from data.images import ImageError, inspect_image
from data.labels import label_path
from data.pages import first_page_note


def unlabelled_records(
    files: Sequence[Path],
    on_bad_image: Literal["skip", "error"] = "skip",
    max_pixels: int = 100_000_000,
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Usable pictures, checked as by `scan_split`, without boxes; what was left out goes to `say`.

    Raises:
        ImageError: the first bad one, where that is asked for.
        DataSetError: more than one and 10 % cannot be used, or there are none.
    """
    records, bad, paged = [], [], []
    for file in files:
        try:
            info = inspect_image(file, max_pixels, decode=on_bad_image == "skip")
        except ImageError as error:
            if on_bad_image == "error":
                raise
            bad.append(str(error))
            continue
        paged += [file] * (info.pages > 1)
        nothing = np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
        records.append(Record(file, label_path(file), info.height, info.width, *nothing, labelled=False))
    if not records or len(bad) > max(1, LARGEST_LOSS * len(files)):
        first = f", such as {bad[0]}" if bad else ""
        raise DataSetError(f"{len(bad)} of {len(files)} pictures cannot be used{first}; give others or repair them")
    if bad:
        say(f"{len(bad)} of {len(files)} pictures skipped: {' | '.join(bad[:3])}")
    if paged:
        say(f"warning: {first_page_note(paged)}")
    return records


def hold_out(records: Sequence[Record], share: float, seed: int) -> tuple[list[Record], list[Record]]:
    """(the others, a random share of the pictures, at least one of each), both in their order.

    Raises:
        DataSetError: there are fewer than two.
    """
    if len(records) < 2:
        raise DataSetError(f"{len(records)} picture is too few: some are trained on and some are held out; give more")
    count = min(len(records) - 1, max(1, round(share * len(records))))
    held = set(np.random.default_rng(seed).permutation(len(records))[:count].tolist())
    split: tuple[list[Record], list[Record]] = ([], [])
    for index, record in enumerate(records):
        split[index in held].append(record)
    return split
