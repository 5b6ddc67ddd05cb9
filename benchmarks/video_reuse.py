"""How many patches of a video keep their SR (--reuse), and how well its boxes agree with those of full processing.

Makes two videos of real pictures: a fixed camera before which parts of other pictures move, with sensor noise, and a
camera that pans. Written as H.264 where PyAV is installed, else as MPEG-4 by OpenCV.

    python -m benchmarks.video_reuse --detector yolo11n.pt --images my/photographs --out runs/video_reuse
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.errors import UserError

if TYPE_CHECKING:
    import torch

    from prediction.api import ConditionalYOLO

THRESHOLDS = (0.0, 4.0, 8.0, 16.0, 32.0)
LIMIT = 100_000_000
SIZE = (160, 120)  # width and height of a frame


def fixed_camera(pictures: list[np.ndarray], frames: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """One picture, before which parts of three others move, with noise of one grey level."""
    import cv2

    background, others = (
        pictures[0],
        [cv2.resize(picture, (36, 27), interpolation=cv2.INTER_AREA) for picture in pictures[1:4]],
    )
    for index in range(frames):
        frame = background.copy()
        for number, part in enumerate(others):
            left = (10 + 45 * number + (2 + number) * index) % (SIZE[0] - part.shape[1])
            top = 8 + 38 * number
            frame[top : top + part.shape[0], left : left + part.shape[1]] = part
        yield (frame + rng.normal(0, 1, frame.shape)).round().clip(0, 255).astype(np.uint8)


def panning_camera(pictures: list[np.ndarray], frames: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A window that moves over two pictures side by side, a pixel every second frame; no noise."""
    wide = np.concatenate(pictures[:2], axis=1)
    for index in range(frames):
        yield wide[:, index // 2 : index // 2 + SIZE[0]]


SCENES = {"fixed camera": fixed_camera, "panning camera": panning_camera}


def write_video(path: Path, frames: Iterator[np.ndarray]) -> str:
    """Write frames, uint8 (H, W, 3) RGB; returns the codec."""
    import cv2

    try:
        import av
    except ImportError:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, SIZE)
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
        writer.release()
        return "MPEG-4 (mp4v)"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "20", "threads": "1"})  # else by cores
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return "H.264 (libx264, crf 20)"


def matched(found: torch.Tensor, full: torch.Tensor) -> int:
    """How many boxes (n, 6) agree in class and by IoU of at least 0.5, each with one other at most, best first."""
    from torchvision.ops import box_iou

    if not len(found) or not len(full):
        return 0
    overlap = box_iou(found[:, :4], full[:, :4]) * (found[:, None, 5] == full[None, :, 5])
    count = 0
    for row in overlap:
        best = int(row.argmax())
        if row[best] >= 0.5:
            count += 1
            overlap[:, best] = 0
    return count


def measure(model: ConditionalYOLO, video: Path, policy: str, refresh: int) -> list[dict]:
    """Rows by threshold: share of patches that kept their SR, agreement with full processing (F1; None where neither
    finds a box), and boxes."""
    from models.patch_reuse import ReuseOptions

    def run(reuse: ReuseOptions | None) -> list:
        results = model.predict(video, policy=policy, stream=True, reuse=reuse)
        return [(result.boxes.data, result.reused_share) for result in results]

    full, rows = run(None), []
    for threshold in THRESHOLDS:
        found = run(ReuseOptions(threshold, refresh))
        agreed = sum(matched(boxes, other) for (boxes, _), (other, _) in zip(found, full, strict=True))
        total = sum(len(boxes) + len(other) for (boxes, _), (other, _) in zip(found, full, strict=True))
        saved = float(np.mean([share for _, share in found]))
        rows.append({"threshold": threshold, "saved": saved, "f1": 2 * agreed / total if total else None,
                     "boxes": sum(len(boxes) for boxes, _ in found)})  # fmt: skip
    return rows


def page(measured: dict[str, dict], options: argparse.Namespace, command: str) -> str:
    """docs/results/video.md."""
    width, height = SIZE
    lines = [
        "# Video: patches that keep their SR",
        "",
        f"`{command}` on an {processor()}, {date.today()}; {options.frames} frames of {width} x {height} at "
        f"x{options.scale:g}, policy `{options.policy}`, a full refresh every {options.refresh} frames, seed "
        f"{options.seed}. The videos are made of real pictures: before a fixed camera parts of others move, with "
        "noise of one grey level; the other camera pans by a pixel every second frame.",
        "",
        "The threshold is the largest change of a channel of a pixel in a patch or its halo, in grey levels of 0-255. "
        "Saved: share of all patches that kept their SR, refreshes counted. F1: boxes of the same class with an IoU of "
        "at least 0.5 to those of full processing.",
        "",
    ]
    head = ["| threshold | saved | F1 with full processing | boxes |", "| ---: | ---: | ---: | ---: |"]
    for scene, result in measured.items():
        lines += [f"## {scene.capitalize()}, {result['codec']}", "", *head]
        for row in result["rows"]:
            agreed = "-" if row["f1"] is None else f"{row['f1']:.3f}"
            lines.append(f"| {row['threshold']:g} | {row['saved']:.3f} | {agreed} | {row['boxes']} |")
        lines.append("")
    return "\n".join(lines)


def command_of(argv: list[str]) -> str:
    """The command that was given, files and folders without those above them."""
    words = [Path(word).name if word.startswith("/") else word for word in argv]
    return shlex.join(["python", "-m", "benchmarks.video_reuse", *words])


def processor() -> str:
    """Name of the processor."""
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        return names[0].partition(": ")[2]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", required=True, help="deployed detector, as in inference.py")
    parser.add_argument("--images", required=True, help="folder with at least four pictures")
    parser.add_argument("--sr", default="shipped", help="SR networks, as in inference.py")
    parser.add_argument("--scale", type=float, default=4, help="factor of SR")
    parser.add_argument("--policy", default="edge=0.25", help="where SR_Quality runs")
    parser.add_argument("--frames", type=int, default=40, help="of each video")
    parser.add_argument("--refresh", type=int, default=30, help="frames between full refreshes")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--out", type=Path, required=True, help="new folder for videos, results.json and video.md")
    options = parser.parse_args(argv)
    import cv2

    from data.images import list_images, read_rgb
    from prediction.api import ConditionalYOLO

    try:
        files = list_images(options.images)[:4]
        if len(files) < 4:
            parser.error(f"{options.images}: {len(files)} pictures; at least 4 are needed")
        pictures = [cv2.resize(read_rgb(file, LIMIT), SIZE, interpolation=cv2.INTER_AREA) for file in files]
        how = {"device": "cpu", "backend": "torch"}  # measures nothing at start-up: figures repeat
        model = ConditionalYOLO(detector=options.detector, sr=options.sr, scale=options.scale, **how)
        options.out.mkdir(parents=True)
        measured = {}
        for scene, draw in SCENES.items():
            video = options.out / f"{scene.replace(' ', '_')}.mp4"
            codec = write_video(video, draw(pictures, options.frames, np.random.default_rng(options.seed)))
            measured[scene] = {"codec": codec, "rows": measure(model, video, options.policy, options.refresh)}
            print(scene, json.dumps(measured[scene]), flush=True)
    except (UserError, OSError) as error:
        parser.error(str(error))
    (options.out / "results.json").write_text(json.dumps(measured, indent=1))
    command = command_of(sys.argv[1:] if argv is None else argv)
    (options.out / "video.md").write_text(page(measured, options, command), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
