"""The images of a detection data set that stages 1 and 3 train on and validate with."""

from __future__ import annotations

from collections.abc import Callable

from configs.schema import DetectionDataConfig
from data.data_spec import DataSpec, Record, load_data_spec, scan_splits
from data.label_share import label_counts, share_labels

Say = Callable[[str], None]


def read_records(
    stage: str, data: DetectionDataConfig, keep_unlabelled: bool, say: Say = print
) -> tuple[DataSpec, dict[str, list[Record]]]:
    """The data set, and its images by split, "train" (with the labels that are to be known) and "val".

    Args:
        stage: name in messages.
        data: of the stage.
        keep_unlabelled: training images whose labels are not to be known stay, without labels.
        say: tells what was found and left out.

    Raises:
        DataSetError, ImageError, LabelError: see `scan_splits`.
    """
    spec = load_data_spec(data.yaml)
    records = scan_splits(spec, data, ("train", "val"), say)
    records["train"] = share_labels(records["train"], data.label_share, data.label_seed, keep_unlabelled)
    say(f"{stage}: {label_counts(records['train'])}")
    return spec, records
