"""Sources: what is found, in which order, what is skipped, and how frames are grouped."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.sources import Frame, Skipped, SourceError, SourceFile, group_frames, list_sources, read_frames
from prediction.run_folder import new_run_folder

LIMIT = 1_000_000


def draw_image(path: Path, height: int = 6, width: int = 8, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)
    return path


def draw_video(path: Path, frames: int = 5, size: tuple[int, int] = (48, 32)) -> Path:
    """Grey frames, each 20 levels brighter than the one before, up to 240."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, size)
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((size[1], size[0], 3), min(20 * index + 40, 240), np.uint8))
    writer.release()
    return path


def found(source) -> list[str]:
    return [file.relative.as_posix() for file in list_sources(source)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "sub/a.png", "sub/deep/C.TIFF", ".hidden.png", ".cache/x.png"):
        draw_image(tmp_path / "in" / name)
    draw_video(tmp_path / "in" / "a.mp4")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


# ---------------------------------------------------------------------------------------------------------- listing


def test_results_are_no_input_of_the_next_run(tree, capsys):
    before = found(tree)
    folder = new_run_folder(tree / "sub" / "out")
    draw_image(folder / "b.png")
    draw_image(folder / "labels" / "a.png")
    assert found(tree) == before and found(tree / "**" / "*.png") == ["b.png", "sub/a.png"]
    assert "results of earlier runs are no input: sub/out" in capsys.readouterr().err
    assert found(folder) == ["b.png", "labels/a.png"], "a folder that is named itself"
    assert found(folder / "*.png") == ["b.png"]


def test_folder_with_subfolders_images_before_videos(tree):
    assert found(tree) == ["a.jpg", "b.png", "sub/a.png", "sub/deep/C.TIFF", "a.mp4"]
    files = list_sources(tree)
    assert [file.number for file in files] == [1, 2, 3, 4, 5] and {file.total for file in files} == {5}
    assert files[-1].label == f"video 5/5 {tree / 'a.mp4'}" and files[0].label == f"image 1/5 {tree / 'a.jpg'}"


def test_single_file(tree):
    assert found(tree / "sub" / "a.png") == ["a.png"]


def test_globs(tree):
    assert found(f"{tree}/*.png") == ["b.png"]
    assert found(f"{tree}/**/a.*") == ["a.jpg", "sub/a.png", "a.mp4"]
    assert found(f"{tree}/s?b/*") == ["sub/a.png"]


def test_relative_glob(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert found("*.png") == ["b.png"]
    assert found("sub/*.png") == ["a.png"]


def test_a_name_that_looks_like_a_glob(tmp_path):
    draw_image(tmp_path / "x[1].png")
    draw_image(tmp_path / "x1.png")
    assert found(tmp_path / "x[1].png") == ["x[1].png"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "--source"),
        ("nowhere.png", "no such file or folder"),
        ("empty", "no image or video found"),
        ("empty/*.png", "no image or video found"),
        ("notes.txt", r"notes\.txt:1: x: no such file"),
        ("notes.md", "no image or video found.*png"),
    ],
)
def test_nothing_to_read(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(SourceError, match=message):
        list_sources(source)


def test_links_in_a_circle_are_walked_once(tree):
    (tree / "sub" / "up").symlink_to(tree)
    assert found(tree)[-1] == "a.mp4" and len(found(tree)) == 5


def test_pipes_are_left_alone_and_broken_links_are_named(tmp_path):
    draw_image(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    items = list(read_frames(list_sources(tmp_path), LIMIT))
    assert [type(item) for item in items] == [Frame, Skipped] and "no such file" in items[1].reason


def test_a_name_of_odd_bytes_can_be_printed(tmp_path):
    name = os.fsdecode(b"odd\xff.png")
    try:
        draw_image(tmp_path / "a.png").rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (file,) = list_sources(tmp_path)
    file.label.encode("utf-8")


def test_several_sources(tree):
    """Images before videos, in the order given, none twice."""
    assert found([tree / "a.mp4", tree / "b.png", tree / "sub"]) == ["b.png", "a.png", "deep/C.TIFF", "a.mp4"]
    files = list_sources([tree / "b.png", f"{tree}/*.png", str(tree / "b.png")])
    assert [file.path.name for file in files] == ["b.png"] and files[0].total == 1
    with pytest.raises(SourceError, match=r"nowhere\.png: no such file"):
        list_sources([tree / "b.png", "nowhere.png"])


def test_a_list_of_files(tree):
    (tree / "list.txt").write_text("sub/a.png\na.jpg\nsub\na.mp4\ngone.png\nb.png\nb.png\n")
    assert found(tree / "list.txt") == ["sub/a.png", "a.jpg", "gone.png", "b.png", "deep/C.TIFF", "a.mp4"]
    items = list(read_frames(list_sources(tree / "list.txt"), LIMIT))
    (skipped,) = (item for item in items if isinstance(item, Skipped))
    assert skipped.file.path.name == "gone.png" and "no such file" in skipped.reason
    (tree / "list.txt").write_text("b.png\nempty\n")
    (tree / "empty").mkdir()
    with pytest.raises(SourceError, match=r"list\.txt:2: .*empty: no image or video found"):
        list_sources(tree / "list.txt")


def test_cameras_and_addresses(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (camera,) = list_sources("0")
    assert (camera.label, camera.is_video, camera.relative.as_posix()) == ("stream 1/1 0", True, "camera0")
    (stream,) = list_sources("rtsp://me:secret@10.0.0.1/live.sdp")
    assert "secret" not in stream.label + repr(stream) and stream.is_video
    assert not list_sources("https://10.0.0.1/a.JPG")[0].is_video
    with pytest.raises(SourceError, match="2 streams"):
        list_sources(["0", "1"])


# ---------------------------------------------------------------------------------------------------------- reading


def test_frames_are_rgb_and_unreadable_files_are_named_in_their_place(tmp_path):
    Image.fromarray(np.full((5, 7, 3), (250, 10, 20), np.uint8)).save(tmp_path / "a.png")
    whole = draw_image(tmp_path / "b.jpg", 40, 40).read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.png").write_text("this is text")
    draw_image(tmp_path / "d.png", 1, 1)
    first, broken, text, last = read_frames(list_sources(tmp_path), LIMIT)
    assert (first.height, first.width, first.index) == (5, 7, None)
    assert first.image[0, 0].tolist() == [250, 10, 20]
    assert "runcated" in broken.reason and "not an image" in text.reason
    assert last.image.shape == (1, 1, 3)


def test_large_images_are_refused(tmp_path):
    draw_image(tmp_path / "a.png", 11, 10)
    (item,) = read_frames(list_sources(tmp_path), max_pixels=100)
    assert "10x11 = 110 pixels" in item.reason


def test_video_frames(tmp_path):
    file = draw_video(tmp_path / "clip.mp4", 5)
    frames = list(read_frames(list_sources(file), LIMIT))
    assert [frame.index for frame in frames] == [1, 2, 3, 4, 5]
    assert all(frame.image.shape == (32, 48, 3) and frame.fps == pytest.approx(12) for frame in frames)
    assert [frame.image.mean() for frame in frames] == pytest.approx([40, 60, 80, 100, 120], abs=6)
    assert frames[1].label == f"video 1/1 {file} (frame 2)"


def test_video_colours(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "red.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (32, 32))
    writer.write(np.full((32, 32, 3), (0, 0, 255), np.uint8))
    writer.release()
    (frame,) = read_frames(list_sources(tmp_path), LIMIT)
    red, green, blue = frame.image.mean((0, 1))
    assert red > 200 and green < 50 and blue < 50


def test_unreadable_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    whole = draw_video(tmp_path / "b.mp4", 20).read_bytes()
    (tmp_path / "b.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.avi").write_bytes(b"")
    draw_image(tmp_path / "d.png")
    items = list(read_frames(list_sources(tmp_path), LIMIT))
    assert isinstance(items[0], Frame)
    assert [item.file.path.name for item in items[1:] if isinstance(item, Skipped)] == ["a.mp4", "b.mp4", "c.avi"]


def test_truncated_video_gives_its_frames_and_is_named(tmp_path):
    file = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (128, 96))
    rng = np.random.default_rng(0)
    for _ in range(20):  # noise, so that the frames outweigh the header
        writer.write(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8))
    writer.release()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    *frames, last = read_frames(list_sources(file), LIMIT)
    assert 0 < len(frames) < 20 and isinstance(last, Skipped)
    assert f"ends after {len(frames)} of 20 frames" in last.reason


def test_large_video_is_refused(tmp_path):
    (item,) = read_frames(list_sources(draw_video(tmp_path / "a.mp4")), max_pixels=48 * 32 - 1)
    assert "48x32 = 1,536 pixels" in item.reason


def test_reading_is_lazy(tmp_path):
    for index in range(3):
        draw_image(tmp_path / f"{index}.png")
    frames = read_frames(list_sources(tmp_path), LIMIT)
    next(frames)
    (tmp_path / "1.png").unlink()
    assert isinstance(next(frames), Skipped)


# --------------------------------------------------------------------------------------------------------- grouping


@given(
    heights=st.lists(st.sampled_from([0, 1, 2]), max_size=30),
    batch=st.integers(1, 5),
)
def test_groups_keep_the_order_and_hold_equal_keys(heights, batch):
    """Height 0 stands for a file that was skipped."""
    file = SourceFile(Path("a.png"), Path("a.png"), 1, 1)
    items = [
        Frame(file, np.zeros((height, 1, 3), np.uint8), index) if height else Skipped(file, str(index))
        for index, height in enumerate(heights)
    ]
    groups = list(group_frames(iter(items), batch, lambda height, width: height))
    flat = [item for group in groups for item in ([group] if isinstance(group, Skipped) else group)]
    assert len(flat) == len(items) and all(a is b for a, b in zip(flat, items, strict=True))
    lists = [group for group in groups if isinstance(group, list)]
    assert all(1 <= len(group) <= batch and len({frame.height for frame in group}) == 1 for group in lists)
    for first, second in pairwise(groups):
        if isinstance(first, list) and isinstance(second, list):
            assert len(first) == batch or first[0].height != second[0].height


def test_groups_hold_one_list_at_a_time():
    file = SourceFile(Path("a.png"), Path("a.png"), 1, 1)
    read = []

    def frames():
        for index in range(100):
            read.append(index)
            yield Frame(file, np.zeros((1, 1, 3), np.uint8), index)

    next(group_frames(frames(), 4, lambda height, width: None))
    assert len(read) <= 5


def test_images_that_nothing_reads_are_counted(tmp_path, capsys):
    for name in ("a.heic", "b.HEIC", "c.dng", "d.gif", "e.jpg", "f.avif"):
        (tmp_path / name).write_bytes(b"x")
    assert {file.path.name for file in list_sources(tmp_path)} >= {"e.jpg", "d.gif"}
    said = capsys.readouterr().err
    assert "left out, nothing here reads .heic (2), .dng (1)" in said and ".gif" not in said
    with pytest.raises(SourceError, match=r"1 file is left out, nothing here reads \.heic \(1\): convert"):
        list_sources(tmp_path / "a.heic")
