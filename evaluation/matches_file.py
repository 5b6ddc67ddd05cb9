"""matches.npz: which detections of every row found an object, all that a bootstrap of its mAP over images needs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from evaluation.detection_eval import SplitResult
from evaluation.map_bootstrap import ClassMatches, class_matches
from utils.atomic_file import replace_file
from utils.errors import UserError

MATCHES = "matches.npz"


def write_matches(path: Path, names: tuple[str, ...], results: dict[str, SplitResult]) -> None:
    """Write the matches of all rows; a few MB for a hundred rows.

    Arrays: `rows`, the names; `objects` (classes with objects, images), how many there are; and for row r and class c
    `r.c.image` and `r.c.hit` of `ClassMatches`, the latter as bits.

    Args:
        path: file to write.
        names: of the classes.
        results: row name -> its result; all of the same images.
    """
    arrays, objects = {"rows": np.array(list(results))}, []
    for number, result in enumerate(results.values()):
        matches = class_matches(result.ground_truth, result.detections, names)
        objects = [one.objects.numpy().astype(np.int32) for one in matches]
        for place, one in enumerate(matches):
            arrays[f"{number}.{place}.image"] = one.image.numpy().astype(np.int32)
            arrays[f"{number}.{place}.hit"] = np.packbits(one.hit.numpy(), axis=1)
    arrays["objects"] = np.array(objects, np.int32)
    replace_file(path, lambda file: np.savez_compressed(file, **arrays))


def read_matches(path: Path, row: str) -> list[ClassMatches]:
    """Matches of one row, class by class.

    Raises:
        UserError: the file is damaged, or knows no such row.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            number = arrays["rows"].tolist().index(row)
            return [_of_class(arrays, f"{number}.{place}", o) for place, o in enumerate(arrays["objects"])]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: no matches of {row} ({error}); delete its folder and measure again") from None


def _of_class(arrays, prefix: str, objects: np.ndarray) -> ClassMatches:
    image = torch.from_numpy(arrays[f"{prefix}.image"].astype(np.int64))
    hit = np.unpackbits(arrays[f"{prefix}.hit"], axis=1, count=len(image)).astype(bool)
    return ClassMatches(image, torch.from_numpy(hit), torch.from_numpy(objects.astype(np.float64)))
