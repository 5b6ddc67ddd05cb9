"""Mistakes of the user end in one line and status 2, defects in a traceback."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader

from data.data_spec import DataSetError
from data.images import ImageError
from data.labels import LabelError
from utils.checkpoint import CheckpointError
from utils.cli import explained, run
from utils.errors import UserError


def test_status_of_main_is_the_status_of_the_process():
    with pytest.raises(SystemExit) as end:
        run(lambda: 1)
    assert end.value.code == 1


def test_sigterm_ends_a_run_as_ctrl_c_does(capsys: pytest.CaptureFixture):
    def main() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        run(main)
    signal.signal(signal.SIGTERM, before)
    assert end.value.code == 130 and capsys.readouterr().err == "stopped; continue with --resume\n"


def test_known_errors_become_one_line(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["some/where/stage1_pretrain_yolo.py", "--config", "x.yaml"])

    def main() -> int:
        raise CheckpointError("x.pth: truncated; copy it again")

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 2
    assert capsys.readouterr().err == "stage1_pretrain_yolo.py: error: x.pth: truncated; copy it again\n"


def test_defects_keep_their_traceback():
    def main() -> int:
        return torch.zeros(2)[5].item()

    with pytest.raises(IndexError):
        run(main)


class Failing(torch.utils.data.Dataset):
    """Fails when it is read."""

    def __init__(self, error: Exception):
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        ImageError("a/b.jpg", "not an image", "remove it"),
        LabelError("a/b.txt", 3, "4 columns", "correct it"),
        DataSetError("a.yaml: empty; add images"),
        UserError("data.imgsz: 3 is no multiple of 32"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_data_loading_processes_are_explained(error: Exception):
    with pytest.raises((RuntimeError, UserError)) as caught:
        next(iter(DataLoader(Failing(error), num_workers=1)))
    assert explained(caught.value) == str(error)


def test_defects_in_data_loading_processes_keep_their_traceback():
    with pytest.raises(KeyError) as caught:
        next(iter(DataLoader(Failing(KeyError("lr")), num_workers=1)))
    assert explained(caught.value) is None
