"""Lists, cameras and addresses: what is one, what may be shown of it, and where a list's entries are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.source_names import SourceError, camera_number, is_stream, listed, stream_name, without_password


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", True), ("12", True), ("/dev/video3", True), ("rtsp://a/b", True), ("HTTP://a/b.mp4", True),
        ("a.png", False), ("folder", False), ("1.png", False), ("²", False), ("C:/a.png", False), ("-1", False),
    ],
)  # fmt: skip
def test_what_is_a_stream(text: str, expected: bool):
    assert is_stream(text) is expected


def test_a_file_called_by_a_number_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").mkdir()
    assert not is_stream("7") and is_stream("8")


def test_other_addresses_are_refused_without_their_password():
    with pytest.raises(SourceError, match="ftp:// is not opened here") as refused:
        is_stream("ftp://me:secret@host/a.mp4")
    assert "secret" not in str(refused.value)


def test_addresses_are_shown_without_secrets():
    address = "rtsp://user:p@ss@10.0.0.1:554/live/1?token=secret#x"
    assert without_password(address) == "rtsp://10.0.0.1:554/live/1"
    assert stream_name(address) == "10.0.0.1_554_live_1"
    assert without_password("folder/a@b.png") == "folder/a@b.png"
    assert stream_name("http://../..") not in ("", ".", "..") and "/" not in stream_name("http://a/b/../c")
    assert [stream_name("0"), stream_name("/dev/video2")] == ["camera0", "camera2"]
    assert [camera_number("3"), camera_number("rtsp://a")] == [3, None]


def test_lists_of_all_kinds(tmp_path, monkeypatch):
    for name in ("a b.png", "sub/c.png", "here.png"):
        (tmp_path / "lists" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lists" / name).touch()
    (tmp_path / "beside.png").touch()
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "lists" / "list.txt"
    text = '\ufeffa b.png\r\n\r\n# no\r\n"sub\\c.png"\n./here.png\nbeside.png\nrtsp://h/x\ngone.png\n*.png\n'
    file.write_text(text, encoding="utf-8")
    lists = tmp_path / "lists"
    expected = [lists / "a b.png", lists / "sub" / "c.png", lists / "here.png"]
    entries = listed(file)
    assert [number for number, _ in entries] == [1, 4, 5, 6, 7, 8, 9]
    assert [Path(entry) for _, entry in entries[:3]] == expected
    assert [entry for _, entry in entries[3:]] == [
        "beside.png", "rtsp://h/x", str(lists / "gone.png"), str(lists / "*.png")
    ]  # fmt: skip
    (lists / "list.csv").write_text("here.png,a b.png\nsub/c.png,", encoding="utf-8")
    assert [Path(entry).name for _, entry in listed(lists / "list.csv")] == ["here.png", "a b.png", "c.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty list"),
        (b"# only\n\n", "an empty list"),
        (b"a\n\xff\xfe", r"list\.txt:2: not UTF-8"),
        (b"\0" * 9, "no list"),
    ],
)
def test_what_is_no_list(tmp_path, content: bytes, message: str):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        listed(tmp_path / "list.txt")


def test_a_list_in_a_list_is_named(tmp_path: Path):
    (tmp_path / "a.txt").write_text("# not b.txt\nrtsp://host/a.txt\nb.txt\n")
    with pytest.raises(SourceError, match=r"a\.txt:3: b\.txt is a list of its own; give both"):
        listed(tmp_path / "a.txt")
