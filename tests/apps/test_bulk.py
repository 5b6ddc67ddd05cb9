"""Bulk inference: tables, plans, resumption, and what happens to bad files and dying workers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps import bulk_inference
from apps.bulk.attempts import careful_results
from apps.bulk.file_list import list_files
from apps.bulk.finder import results_of
from apps.bulk.plan import make_plan, placed, read_plan
from apps.bulk.run import compute
from apps.bulk.tables import FileResult, finished, part_file
from tests.apps.bright_spots import BrightSpots, find
from tests.extras import needs_extra
from utils.errors import UserError

pytestmark = needs_extra("bulk")
ROOT = Path(__file__).resolve().parents[2]


def draw(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        image = np.zeros((24, 32), np.uint8)
        y, x = rng.integers(0, 20, 2)
        image[y : y + 3, x : x + 3] = 255
        Image.fromarray(image).save(folder / f"{number:04d}.png")
    return folder


def table(out: Path, kind: str) -> list[dict]:
    import pyarrow.parquet as parquet

    rows = [row for file in sorted((out / kind).glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]
    return sorted(({k: v for k, v in row.items() if k != "chunk"} for row in rows), key=lambda row: row["path"])


def start(folder: Path, out: Path, chunk: int = 2, workers: int = 2) -> subprocess.Popen:
    """A run in a process group of its own, Ray's processes with it."""
    command = [sys.executable, "-m", "tests.apps.bright_spots", str(folder), str(out), str(chunk), str(workers)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def expected(folder: Path, out: Path) -> Path:
    """A clean run without Ray: the plain loop."""
    plan = make_plan(out, sorted(folder.glob("*.png")), {"detector": "bright spots"}, 5)
    for number, chunk in enumerate(plan.chunks):
        compute(find, out, chunk, number)
    return out


def same_tables(one: Path, other: Path) -> None:
    for kind in ("files", "boxes"):
        assert table(one, kind) == table(other, kind) != []


def workers_of(process: subprocess.Popen) -> list[int]:
    """Processes of a run that hold a model."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            if title.startswith(b"ray::MapWorker") and os.getsid(int(folder.name)) == process.pid:
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def killed(folder: Path, out: Path, kills: int, rng: random.Random, whole: float) -> dict[str, int]:
    """Run to the end in spite of kills at random times: of a worker, or, with the probability `whole`, of everything.

    Returns how many of both met a run that was not finished.
    """
    met, process = {"whole run": 0, "worker": 0}, start(folder, out)
    try:
        while sum(met.values()) < kills:
            before = len(finished(out))
            while len(finished(out)) == before and process.poll() is None:
                time.sleep(0.01)  # until it reads files
            time.sleep(rng.uniform(0, 0.3))
            alive = [] if rng.random() < whole else workers_of(process)
            if process.poll() is not None:
                break
            if alive:
                os.kill(rng.choice(alive), signal.SIGKILL)
                met["worker"] += 1
                continue
            os.killpg(process.pid, signal.SIGKILL)
            met["whole run"] += 1
            process.communicate()
            process = start(folder, out)
        text = process.communicate()[0].decode()
        assert process.returncode == 0 and ("'missing': 0" in text or "Counter()" in text), text[-2000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return met


def test_a_killed_run_ends_as_a_clean_one(tmp_path):
    folder = draw(tmp_path / "in", 40)
    (folder / "bad.png").write_text("no image")
    assert killed(folder, tmp_path / "out", 1, random.Random(0), whole=1.0) == {"whole run": 1, "worker": 0}
    same_tables(tmp_path / "out", expected(folder, tmp_path / "clean"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_20_times_ends_as_a_clean_one(tmp_path):
    folder = draw(tmp_path / "in", 1000)
    (folder / "bad.png").write_text("no image")
    met = killed(folder, tmp_path / "out", 20, random.Random(1), whole=0.3)
    print(met)
    assert sum(met.values()) == 20 and min(met.values()) > 0
    same_tables(tmp_path / "out", expected(folder, tmp_path / "clean"))


def test_a_worker_that_dies_and_defects_cost_no_other_file(tmp_path):
    folder = draw(tmp_path / "in", 6)
    for name in ("die", "deadly", "defect"):
        (folder / f"{name}.png").write_bytes((folder / "0000.png").read_bytes())
    (folder / "bad.png").write_text("no image")
    process = start(folder, tmp_path / "out", chunk=3)
    text = process.communicate()[0].decode()
    assert process.returncode == 0, text[-2000:]
    rows = {Path(row["path"]).stem: row for row in table(tmp_path / "out", "files")}
    assert len(rows) == 10 and {name for name, row in rows.items() if row["status"] == "ok"} == rows.keys() - {
        "bad", "deadly", "defect"
    }  # fmt: skip
    assert rows["deadly"]["status"] == "failed" and "died 3 times" in rows["deadly"]["reason"]
    assert rows["bad"]["status"] == "skipped" and rows["defect"]["reason"] == "ZeroDivisionError: a defect"
    assert len(table(tmp_path / "out", "boxes")) == 7 and "'missing': 0" in text


def test_files_at_which_a_worker_died_are_read_alone_and_given_up(tmp_path):
    paths, note, seen = [tmp_path / name for name in "abc"], tmp_path / "running" / "part.json", []

    def deadly(some):
        seen.append([path.name for path in some])
        if any(path.name == "b" for path in some):
            raise KeyboardInterrupt  # not an Exception: as if the process ended
        return (FileResult(str(path)) for path in some)

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            careful_results(deadly, paths, note)
    results = careful_results(deadly, paths, note)
    assert seen == [["a", "b", "c"], *[["a"], ["b"]] * 3, ["a"], ["c"]] and not note.exists()
    assert [r.status for r in results] == ["ok", "failed", "ok"]


def test_lists_and_tables_of_files(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    folder = draw(tmp_path / "in", 3)
    (tmp_path / "list.txt").write_text("in/0001.png\nin/0000.png\n\nin/0001.png\n/elsewhere/missing file.png\n")
    paths, twice = list_files(str(tmp_path / "list.txt"))
    assert paths == [folder / "0001.png", folder / "0000.png", Path("/elsewhere/missing file.png")] and twice == 1
    parquet.write_table(pa.table({"path": ["in/0002.png", None], "x": [1, 2]}), tmp_path / "list.parquet")
    assert list_files(str(tmp_path / "list.parquet")) == ([folder / "0002.png"], 0)
    assert list_files(str(folder)) == (sorted(folder.iterdir()), 0)
    parquet.write_table(pa.table({"file": ["in/0002.png"]}), tmp_path / "other.parquet")
    (tmp_path / "empty.txt").write_text("\n")
    odd = ["a b.png", "a\x85b\x0cc\u2028d.png", os.fsdecode(b"\xff.png")]
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(odd).encode("utf-8", "surrogateescape"))
    assert list_files(str(tmp_path / "windows.txt")) == ([tmp_path / name for name in odd], 0)
    for stream in ("0", "rtsp://user:secret@127.0.0.1/live"):
        with pytest.raises(UserError, match="cameras and streams do not end") as error:
            list_files(stream)
        assert "secret" not in str(error.value)
    for name, words in (("other.parquet", "column path"), ("empty.txt", "names no file"), ("none.txt", "one path")):
        with pytest.raises(UserError, match=words):
            list_files(str(tmp_path / name))


def test_a_plan_is_gone_on_with_and_never_mixed(tmp_path):
    out, names = tmp_path / "out", [Path(f"/x/{n}") for n in "abcde"]
    first = make_plan(out, names[:3], {"conf": 0.25}, 2)
    assert first.chunks == [["/x/a", "/x/b"], ["/x/c"]]
    again = make_plan(out, [*names, Path(os.fsdecode(b"/x/\xff"))], {"conf": 0.25}, 2)
    assert again.chunks == [*first.chunks, ["/x/d", "/x/e"], [os.fsdecode(b"/x/\xff")]] == read_plan(out).chunks
    with pytest.raises(UserError, match=r"conf 0\.25 instead of 0\.5"):
        make_plan(out, names, {"conf": 0.5}, 2)
    (out / "plan.json").write_text("[]")
    with pytest.raises(UserError, match="no plan"):
        make_plan(out, names, {"conf": 0.25}, 2)


def test_tables_without_their_plan_are_not_taken_for_others(tmp_path):
    """Chunk 0 of the lost plan is another one than that of a new plan."""
    folder, out = draw(tmp_path / "in", 2), tmp_path / "out"
    compute(find, out, [str(folder / "0000.png")], 0)
    part_file(out, "files", 0).with_name("part-of mine.parquet").touch()
    assert finished(out) == {0}
    with pytest.raises(UserError, match=r"holds tables of a run, and no plan.json .*; name another --out"):
        make_plan(out, [folder / "0001.png"], {}, 2)
    assert not (out / "plan.json").exists()


def test_weights_are_known_by_what_they_hold(tmp_path, monkeypatch):
    (tmp_path / "a.pth").write_bytes(b"one")
    (tmp_path / "b,c.pth").write_bytes(b"two")
    monkeypatch.chdir(tmp_path)
    model, before = placed({"detector": "a.pth", "sr": "a.pth,edsr_8x32", "scale": 4.0})
    assert model == {"detector": str(tmp_path / "a.pth"), "sr": f"{tmp_path / 'a.pth'},edsr_8x32", "scale": 4.0}
    assert placed({"sr": "b,c.pth"})[0] == {"sr": str(tmp_path / "b,c.pth")}
    make_plan(tmp_path / "out", [Path("/x/a")], model | {"sha256 of weights": before}, 1)
    (tmp_path / "a.pth").write_bytes(b"trained again")
    again, after = placed({"detector": "a.pth", "sr": "a.pth,edsr_8x32", "scale": 4.0})
    assert again == model and before != after
    with pytest.raises(UserError, match=r"made with sha256 of weights .*; name another --out"):
        make_plan(tmp_path / "out", [Path("/x/a")], again | {"sha256 of weights": after}, 1)


def test_boxes_are_written_before_what_says_that_they_are_there(tmp_path, monkeypatch):
    folder, out = draw(tmp_path / "in", 2), tmp_path / "out"
    paths = [*map(str, sorted(folder.iterdir())), os.fsdecode(b"/x/\xff.png")]
    real, written = os.replace, []

    def full(source, target):
        if Path(target).parent.name == "files":
            raise OSError(28, "No space left on device")
        written.append(Path(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="space"):
        compute(find, out, paths, 7)
    assert written == [part_file(out, "boxes", 7)] and not finished(out) and not [*(out / "files").iterdir()]
    monkeypatch.undo()
    assert compute(find, out, paths, 7) == {"ok": 2, "skipped": 1, "failed": 0, "boxes": 2} and finished(out) == {7}
    assert table(out, "files")[-1]["path"] == "/x/\\xff.png"


def test_a_defect_costs_its_file_only(tmp_path):
    folder = draw(tmp_path / "in", 3)
    (folder / "defect.png").touch()
    results = results_of(BrightSpots()(), sorted(folder.iterdir()))
    assert [r.status for r in results] == ["ok"] * 3 + ["failed"]


def test_wrong_arguments_are_told_in_one_line(tmp_path, capsys):
    draw(tmp_path / "in", 1)
    words = ["--source", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert bulk_inference.main([*words, "--weights", str(tmp_path / "none.pth")]) == 2
    assert bulk_inference.main(["--source", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("bulk_inference: error: ") == 2 and not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/below"):
        assert bulk_inference.main([*words[:2], "--out", str(tmp_path / out), "--weights", "none.pth"]) == 2
        assert f"--out: {tmp_path / 'file'} is a file, so" in capsys.readouterr().err
    for wrong in (["--workers", "0"], ["--gpus", "-1"], ["--gpus", "nan"]):
        with pytest.raises(SystemExit):
            bulk_inference.main([*words, *wrong])
        assert f"{wrong[0]} is " in capsys.readouterr().err
