"""Files that ask for everything are refused in little memory, and by one line."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from loading.bounded_build import at_most, unbounded
from loading.detector_weights import load_detector
from loading.load_sr import load_sr
from models import build_sr
from tests.hostile import CASES, torch_archive
from utils.checkpoint import CheckpointError, load_checkpoint, refuse_hostile, save_checkpoint
from utils.errors import UserError

MOST_MEGABYTES = 300
PEAK, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def forget_peak() -> bool:
    try:
        PEAK.write_text("5")
    except OSError:
        return False
    return True


def megabytes(key: str) -> float:
    return int(next(line for line in STATUS.read_text().splitlines() if line.startswith(key)).split()[1]) / 1024


@pytest.mark.parametrize("name", CASES)
def test_refused_in_little_memory(tmp_path: Path, name: str):
    file, make, read = CASES[name]
    make(tmp_path / file)
    measured = forget_peak()
    before = megabytes("VmRSS:") if measured else 0
    with pytest.raises(UserError) as refused:
        read(tmp_path / file)
    assert not measured or megabytes("VmHWM:") - before < MOST_MEGABYTES
    assert file in str(refused.value) and len(str(refused.value)) < 1000


def test_a_network_is_stopped_while_it_grows():
    message = r"w\.pth: describes a network with far more modules than its 1 tensors"
    with pytest.raises(CheckpointError, match=message), at_most("w.pth", {"w": torch.zeros(1)}):
        build_sr("edsr", 4, {"n_blocks": 100_000, "n_feats": 1})
    network = build_sr("edsr", 4, {"n_blocks": 1, "n_feats": 4})
    with at_most("w.pth", network.state_dict()):
        assert build_sr("edsr", 4, {"n_blocks": 1, "n_feats": 4}).state_dict().keys() == network.state_dict().keys()


def test_other_threads_and_parts_with_files_of_their_own_are_not_counted():
    failed: list[BaseException] = []

    def build() -> None:
        try:
            build_sr("edsr", 4, {"n_blocks": 1000, "n_feats": 1})
        except BaseException as error:
            failed.append(error)

    with at_most("w.pth", {"w": torch.zeros(1)}):
        thread = threading.Thread(target=build)
        thread.start()
        thread.join()
        with unbounded():
            build()
        assert not failed
        build()
    assert len(failed) == 1


def test_what_checkpoints_hold_passes(tmp_path: Path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"x")
    shared = torch.rand(1000)
    refuse_hostile(path, {"a": shared, "b": shared[10:], "c": [(1, {"d": None})] * 1000})


def test_a_file_of_others_is_unpickled_once(tmp_path: Path, monkeypatch):
    """Unpickling is what costs seconds in a file that is made to."""
    calls, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: calls.append(args) or load(*args, **kwargs))
    file, make, read = CASES["lists that double, community"]
    make(tmp_path / file)
    with pytest.raises(UserError):
        read(tmp_path / file)
    assert len(calls) == 1


@pytest.mark.parametrize("read", [load_checkpoint, load_sr, lambda path: load_detector("yolo11n.yaml", path, ["a"])])
def test_many_values_around_few_tensors_are_not_unpickled(tmp_path: Path, monkeypatch, read):
    """Nested in whatever way: half a million lists take two seconds to unpickle."""
    calls: list = []
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: calls.append(args))
    file = torch_archive(tmp_path / "n.pth", b"\x80\x02" + b"](" * 100_000 + b"K\x01e" * 100_000 + b".")
    with pytest.raises(UserError, match=r"n\.pth: .*500,003 bytes of values in one another around 3 parts"):
        read(file)
    assert not calls


def test_large_states_of_many_tensors_are_unpickled(tmp_path: Path):
    """A thousand tensors with long names, and a history of numbers beside them."""
    state = {f"network.layer.{'block.' * 20}{number}.weight": torch.zeros(1) for number in range(1000)}
    save_checkpoint(tmp_path / "a.pth", {"model": state, "log": [float(number) for number in range(20_000)]})
    assert len(load_checkpoint(tmp_path / "a.pth")["model"]) == 1000
