"""Mistakes of the user end in one line and status 2, defects in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from data.images import read_rgb
from utils.checkpoint import CheckpointError
from utils.cli import explained, run


def test_status_of_main_is_the_status_of_the_process():
    with pytest.raises(SystemExit) as end:
        run(lambda: 1)
    assert end.value.code == 1


def test_known_errors_become_one_line(capsys: pytest.CaptureFixture):
    def main() -> int:
        raise CheckpointError("x.pth: truncated; copy it again")

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: x.pth: truncated; copy it again\n"


def test_defects_keep_their_traceback():
    def main() -> int:
        return torch.zeros(2)[5].item()

    with pytest.raises(IndexError):
        run(main)


def test_errors_of_data_loading_processes_are_explained(tmp_path: Path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")

    class Broken(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int):
            return read_rgb(broken, 1000)

    with pytest.raises(RuntimeError) as error:
        next(iter(DataLoader(Broken(), num_workers=1)))
    message = explained(error.value)
    assert message.startswith(str(broken)) and "\n" not in message
