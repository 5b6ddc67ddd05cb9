"""A checkpoint comes back bit for bit or not at all, whatever happened to the file or to the program that wrote it."""

from __future__ import annotations

import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.train_state import TrainState
from utils.checkpoint import (
    CheckpointError,
    checksum,
    load_checkpoint,
    load_network,
    save_checkpoint,
    save_network,
)

ROOT = Path(__file__).resolve().parents[2]
DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.int8,
    torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64,
]  # fmt: skip


def same(a, b) -> bool:
    """Equal in type, structure and every bit (NaN equals the same NaN, 0.0 is not -0.0)."""
    if isinstance(a, torch.Tensor):
        bits = [t.reshape(-1).view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return type(b) is float and struct.pack("<d", a) == struct.pack("<d", b)
    return type(a) is type(b) and a == b


def payload(size: int = 40) -> dict:
    generator = torch.Generator().manual_seed(size)
    return {
        "step": 7,
        "model": {"weight": torch.randn(size, size, generator=generator), "bias": torch.randn(size).bfloat16()},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]},
        "window": {"loss": 0.1},
    }


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.pth"
    save_checkpoint(path, payload())
    return path


# ----------------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype):
    bits = torch.randint(0, 2 if dtype is torch.bool else 256, (3, 4, 16), dtype=torch.uint8)
    tensor = bits.view(dtype)
    tree = {"full": tensor, "view": tensor[1:, ::2], "flipped": tensor.transpose(0, 2), "empty": tensor[:0]}
    tree["scalar"] = tensor[0, 0, 0]
    save_checkpoint(tmp_path / "a.pth", tree)
    assert same(load_checkpoint(tmp_path / "a.pth"), tree)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(-3, 3), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.text().filter(lambda key: key != "checksum"), TREES, max_size=4))
@settings(max_examples=50)
def test_plain_values_come_back(tmp_path_factory, tree: dict):
    path = tmp_path_factory.getbasetemp() / "plain.pth"
    save_checkpoint(path, tree)
    assert same(load_checkpoint(path), tree)


@given(TREES, TREES)
def test_different_content_has_different_checksums(a, b):
    assert (checksum(a) == checksum(b)) == same(a, b)


def test_checksum_tells_types_shapes_and_order_apart():
    ones = torch.ones(2, 3)
    trees = [ones, ones.T, ones.int(), ones.view(6), [1.0] * 6, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": {}, "b": []}]
    trees += [{"a": []}, [1, 2], (1, 2), "12", 12, 1, 1.0, True, "1", None, 0.0, -0.0, [[], []], [[[]]], {1: 2}]
    assert len({checksum(tree) for tree in trees}) == len(trees)


def test_what_is_saved_is_plain_and_small(tmp_path: Path):
    big = torch.zeros(1000, 1000)
    module = torch.nn.Linear(3, 2)
    tree = {"row": big[3], "state": module.state_dict(), "numpy": np.float32(0.5), "parameter": module.weight}
    assert isinstance(tree["state"], OrderedDict)
    save_checkpoint(tmp_path / "a.pth", tree)
    assert (tmp_path / "a.pth").stat().st_size < 20_000
    loaded = load_checkpoint(tmp_path / "a.pth")
    assert type(loaded["state"]) is dict and loaded["numpy"] == 0.5 and type(loaded["numpy"]) is float
    assert not loaded["parameter"].requires_grad
    assert tree["row"].untyped_storage().nbytes() == 4_000_000, "the caller's tensor stays as it is"


@pytest.mark.parametrize(
    "value, message",
    [
        ({"a": [1, Path("x")]}, r"payload\['a'\]\[1\] is a PosixPath"),
        ({"a": {1.5: 2}}, r"payload\['a'\] has the key 1.5; keys must be str or int"),
        ({"a": b"bytes"}, r"payload\['a'\] is a bytes; a checkpoint holds plain types and tensors only"),
        ({"a": np.zeros(3)}, r"payload\['a'\] is a ndarray"),
        ({"a": torch.zeros(3).to_sparse()}, r"payload\['a'\] is a torch.sparse_coo tensor"),
        ({"checksum": "x"}, "payload key 'checksum' is reserved"),
    ],
)
def test_other_types_are_refused_before_anything_is_written(tmp_path: Path, value, message: str):
    with pytest.raises(TypeError, match=message):
        save_checkpoint(tmp_path / "a.pth", value)
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------------- damage


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "; " in message and "\n" not in message
    return message


def test_truncated_at_any_length(good: Path, tmp_path: Path):
    raw, chance = good.read_bytes(), random.Random(0)
    for length in [0, 1, 2, 4, len(raw) - 1, *(chance.randrange(len(raw)) for _ in range(50))]:
        (tmp_path / "cut.pth").write_bytes(raw[:length])
        message = refused(tmp_path / "cut.pth")
        if length != 1:
            assert f"truncated ({length} bytes)" in message


def test_no_flipped_bit_passes_silently(good: Path, tmp_path: Path):
    raw, chance, wanted, caught = good.read_bytes(), random.Random(1), load_checkpoint(good), 0
    for place in [chance.randrange(8 * len(raw)) for _ in range(50)]:
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / "flip.pth").write_bytes(flipped)
        try:
            loaded = load_checkpoint(tmp_path / "flip.pth")
        except CheckpointError:
            caught += 1
        else:  # the bit lay in the padding between the parts
            assert same(loaded, wanted), place
    assert caught > 40


def test_overwritten_and_foreign_files(good: Path, tmp_path: Path):
    raw = bytearray(good.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 512] = bytes(512)
    (tmp_path / "hole.pth").write_bytes(raw)
    assert "damaged" in refused(tmp_path / "hole.pth")
    (tmp_path / "text.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "but a Git-LFS pointer; fetch the file itself" in refused(tmp_path / "text.pth")
    torch.save({"weights": "none"}, tmp_path / "foreign.pth")
    assert "not a checkpoint of this project (it carries no checksum)" in refused(tmp_path / "foreign.pth")
    for content in ({"a.weight": torch.ones(3)}, {"state_dict": {"a.weight": torch.ones(3)}}):
        torch.save(content, tmp_path / "plain.pth")
        message = refused(tmp_path / "plain.pth")
        assert "a plain state dict: kind, name and args" in message and "missing" in message
    torch.save([1, 2], tmp_path / "list.pth")
    assert "not a checkpoint of this project" in refused(tmp_path / "list.pth")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as file:
        file.writestr("readme.txt", "hello")
    assert "but an archive of readme.txt; unpack it" in refused(tmp_path / "zip.pth")
    assert "is a folder" in refused(tmp_path)


def test_missing_files_say_where_to_get_them(tmp_path: Path):
    assert "does not exist; correct the path or train it first" in refused(tmp_path / "x.pth")
    assert "stage1_pretrain_yolo.py writes it" in refused(tmp_path / "yolo_pretrained_hr.pth")
    assert "stage2_pretrain_sr.py writes it" in refused(tmp_path / "sr_fast_pretrained.pth")


class Gadget:
    """Unpickled with the ordinary pickle, it runs a command."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_code_in_a_pickle_does_not_run(tmp_path: Path):
    marker = tmp_path / "ran"
    torch.save({"checksum": "0", "weights": Gadget(marker)}, tmp_path / "zip.pth")
    torch.save({"weights": Gadget(marker)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Gadget(marker)))
    (tmp_path / "bare0.pth").write_bytes(pickle.dumps(Gadget(marker), protocol=0))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("zip", "old", "bare", "module"):
        message = refused(tmp_path / f"{name}.pth")
        assert "code" in message and "not executed" in message
    assert "not a checkpoint of this project" in refused(tmp_path / "bare0.pth")
    assert not marker.exists()
    pickle.loads((tmp_path / "bare.pth").read_bytes())
    assert marker.exists(), "the gadget must be a live one"


# ------------------------------------------------------------------------------------------------------------- networks


def test_network_checkpoints(tmp_path: Path):
    path, network = tmp_path / "n.pth", torch.nn.Conv2d(3, 4, 3)
    save_network(path, "sr", "espcn", {"scale": 4}, network.state_dict(), {"stage": 2, "psnr": 28.4})
    for kind in (None, "sr"):
        loaded = load_network(path, kind)
        assert (loaded["kind"], loaded["name"], loaded["args"]) == ("sr", "espcn", {"scale": 4})
        assert same(loaded["weights"], dict(network.state_dict())) and loaded["meta"] == {"stage": 2, "psnr": 28.4}
    with pytest.raises(
        CheckpointError, match=r"n\.pth: expected a checkpoint of kind 'detector', found 'sr' \(espcn\);"
    ):
        load_network(path, "detector")
    with pytest.raises(ValueError, match="kind must be one of sr, detector, system, found 'other'"):
        save_network(path, "other", "x", {}, {}, {})
    save_checkpoint(path, payload())
    with pytest.raises(CheckpointError, match="not a network checkpoint"):
        load_network(path)


def test_a_damaged_name_in_the_archives_directory_is_damage(tmp_path: Path):
    save_checkpoint(tmp_path / "a.pth", payload())
    content = bytearray((tmp_path / "a.pth").read_bytes())
    at = content.rindex(b"PK\1\2") + 46  # first byte of the last name
    content[at] = 0xFD
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pth: damaged"):
        load_checkpoint(tmp_path / "a.pth")


# ------------------------------------------------------------------------------------------------------ training state


def test_state_rotates(tmp_path: Path):
    state = TrainState(tmp_path / "checkpoints")
    assert state.load_newest() is None
    for step in (1, 2, 3):
        state.save({"step": step})
    assert state.load_newest() == ({"step": 3}, state.last)
    assert load_checkpoint(state.previous) == {"step": 2}
    assert sorted(p.name for p in state.folder.iterdir()) == ["last.pth", "previous.pth"]


def test_a_damaged_state_is_named_and_skipped(tmp_path: Path, capsys):
    state = TrainState(tmp_path)
    state.save({"step": 1})
    state.save({"step": 2})
    state.last.write_bytes(state.last.read_bytes()[:-30])
    assert state.load_newest() == ({"step": 1}, state.previous)
    assert f"skipped {state.last}: truncated" in capsys.readouterr().err
    state.save({"step": 3})
    assert load_checkpoint(state.previous) == {"step": 1}, "the damaged file must not push out the good one"
    assert state.load_newest() == ({"step": 3}, state.last)
    state.save({"step": 4})
    assert load_checkpoint(state.previous) == {"step": 3}
    state.last.unlink()  # killed between the two renames
    assert state.load_newest() == ({"step": 3}, state.previous)


def test_training_does_not_start_again_unnoticed(tmp_path: Path, capsys):
    state = TrainState(tmp_path)
    state.save({"step": 1})
    state.save({"step": 2})
    for path in (state.last, state.previous):
        path.write_bytes(b"PK" + bytes(100))
    with pytest.raises(
        CheckpointError, match=r"no good training state left \(last.pth, previous.pth damaged\); delete"
    ):
        state.load_newest()
    assert capsys.readouterr().err.count("warning: skipped") == 2


# For every line that it is given a process that tells its number, saves until it is killed, and says what is saved.
WRITERS = """
import os, sys, torch
from training.train_state import TrainState
torch.set_num_threads(1)
def write():
    state = TrainState(sys.argv[1])
    newest = state.load_newest()
    step = 0 if newest is None else newest[0]["step"]
    while True:
        step += 1
        state.save({"step": step, "weights": torch.full((300_000,), float(step))})
        print(step, flush=True)
for _ in sys.stdin:
    process = os.fork()
    if process == 0:
        print(os.getpid(), flush=True)
        write()
    os.waitpid(process, 0)
    print("ended", flush=True)
"""


def stop_in_a_save(process: int, folder: Path) -> None:
    """Stop a process that saves all the time while a file is being written."""
    while True:
        os.kill(process, signal.SIGSTOP)
        if {file.name for file in folder.iterdir()} - {"last.pth", "previous.pth"}:
            return
        os.kill(process, signal.SIGCONT)
        time.sleep(0.001)


def test_killed_while_saving_there_is_always_a_good_newest(tmp_path: Path):
    chance, in_between = random.Random(0), 0
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITERS, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, env=environment, **pipes) as writers:
        for number in range(5):
            writers.stdin.write("\n")
            process, said = int(writers.stdout.readline()), [writers.stdout.readline()]
            time.sleep(chance.random() * 0.04)
            if number == 0:
                stop_in_a_save(process, tmp_path)
            os.kill(process, signal.SIGKILL)
            said += iter(writers.stdout.readline, "ended\n")
            confirmed = int(said[-1])
            in_between += len(list(tmp_path.iterdir())) > 2
            loaded, _ = TrainState(tmp_path).load_newest()
            assert confirmed <= loaded["step"] <= confirmed + 1
            assert torch.equal(loaded["weights"], torch.full((300_000,), float(loaded["step"])))
        writers.stdin.close()
    assert in_between > 0, "no kill hit a save"
    TrainState(tmp_path).save({"step": 0})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pth", "previous.pth"], "leftovers are swept up"
