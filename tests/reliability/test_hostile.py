"""Files made to harm: code in pickles is never run, small files that ask for everything are refused."""

from __future__ import annotations

import io
import os
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch

from loading.detector_weights import load_detector
from loading.load_sr import load_sr
from tests.hostile import CASES, torch_archive
from utils.checkpoint import load_checkpoint
from utils.errors import UserError


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments: object):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def gadgets(mark: Path) -> dict[str, bytes]:
    """Pickles that leave a file when they are loaded as pickles."""
    touch, code = f"touch {mark}", f"open({str(mark)!r}, 'w')"
    objects = {
        "os.system": Calls(os.system, touch),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "open": Calls(open, str(mark), "w"),
        "getattr": Calls(getattr(io, "open"), str(mark), "w"),  # noqa: B009
        "mkdir": Calls(os.mkdir, str(mark)),
        "in a list": [1, [Calls(eval, code)]],
        "in a dict": {"weights": {"w": Calls(eval, code)}},
        "beside a tensor": {"w": torch.zeros(2).tolist(), "x": Calls(os.system, touch)},
        "in a key": {(Calls(eval, code), 1): 2},
        "import": Calls(__import__, "pathlib"),
        "pickle in a pickle": Calls(pickle.loads, pickle.dumps(Calls(eval, code))),
    }
    return {name: pickle.dumps(value, 2) for name, value in objects.items()}


def test_code_in_pickles_is_not_run(tmp_path: Path, record):
    mark, ran, loaded, tried = tmp_path / "mark", 0, 0, 0
    readers = (load_checkpoint, load_sr, lambda path: load_detector("yolo11n.yaml", path, ["a"]))
    for content in gadgets(mark).values():
        files = [torch_archive(tmp_path / "a.pth", content), tmp_path / "b.pt", tmp_path / "c.pth"]
        files[1].write_bytes(content)
        with zipfile.ZipFile(files[2], "w") as archive:
            archive.write(files[0], "inner/data.pkl")
        for file in files:
            for read in readers:
                tried += 1
                try:
                    read(file)
                    loaded += 1
                except UserError:
                    pass
                ran += mark.exists()
    record(
        "Hostile files", "12 pickles with code x 3 wrappings x 3 readers: refused, not run", tried - ran - loaded, tried
    )


@pytest.mark.slow
def test_files_that_ask_for_everything(tmp_path: Path, count, record):
    count(0, 1)
    good, longest = 0, 0.0
    for number, (file, make, read) in enumerate(CASES.values()):
        (tmp_path / str(number)).mkdir()
        make(tmp_path / str(number) / file)
        began = time.process_time()
        try:
            read(tmp_path / str(number) / file)
        except UserError:
            good += 1
        longest = max(longest, time.process_time() - began)
    note = f"longest {longest:.2f} s of CPU; memory is bounded by tests/loading/test_hostile_files.py"
    record("Hostile files", "billions of blocks, nested, expanded, compressed: refused", good, len(CASES), note)
