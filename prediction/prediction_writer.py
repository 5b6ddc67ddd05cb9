"""The run folder of inference: pictures, SR images, masks, YOLO labels, predictions.json and annotated videos."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs.inference_schema import InferenceConfig
from data.sources import Frame, SourceFile
from prediction.png_strips import save_png
from prediction.predictor import Prediction
from prediction.run_folder import output_names
from prediction.video import VideoFiles
from utils.overlay import draw_boxes

JPEG_SUFFIXES = (".jpg", ".jpeg")
LARGEST_JPEG_SIDE = 65_500


def label_lines(boxes: np.ndarray, height: int, width: int, scores: bool = False) -> str:
    """Boxes (n, 6) in pixels -> lines `class cx cy w h`, normalised, and the score where asked for."""
    lines = []
    for x1, y1, x2, y2, score, label in boxes.tolist():
        values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(" ".join(f"{value:g}" for value in (int(label), *values, *[score] * scores)) + "\n")
    return "".join(lines)


class PredictionWriter:
    """Writes results as they come; holds no image, and one open video at most.

    Args:
        folder: existing, empty run folder.
        files: all files that will come, images first.
        config: which kinds of results to save.
        scale: pixels of the super-resolved image per pixel of the image.
        names: class names.
    """

    def __init__(
        self, folder: Path, files: Iterable[SourceFile], config: InferenceConfig, scale: float, names: tuple[str, ...]
    ):
        self.folder, self.config, self.scale, self.names = folder, config, scale, names
        self.outputs = output_names(files)
        self.labels = self.objects = 0
        self._videos = VideoFiles()
        self._json, self._json_entries = None, 0
        if config.save_json:
            self._json = (folder / "predictions.json").open("w", encoding="utf-8")
            self._json.write("[")

    def close(self) -> None:
        """End the open video and predictions.json, which is then valid also after an error."""
        try:
            self._videos.close()
        finally:
            if self._json:
                with self._json:
                    self._json.write("\n]\n")

    def line(self, result: Prediction) -> str:
        """`3 persons, 1 car, kept 0.24, 35.2ms`."""
        counts = sorted(Counter(result.boxes[:, 5].astype(int).tolist()).items())
        found = [f"{count} {self.names[label]}{'s' * (count > 1)}" for label, count in counts] or ["(no detections)"]
        kept = [] if result.kept_share is None else [f"kept {result.kept_share:.2f}"]
        reused = [] if result.reused_share is None else [f"reused {result.reused_share:.2f}"]
        parts = [f"{result.parts} parts"] if result.parts > 1 else []
        more = ["max_det reached"] if result.max_det_reached else []
        return ", ".join([*found, *more, *parts, *kept, *reused, f"{result.ms:.1f}ms"])

    def summary(self) -> tuple[list[str], list[str]]:
        """Numbers of objects and of label files."""
        return [f"{self.objects} objects"], [f"({self.labels} label files)"] if self.config.save_txt else []

    def write(self, frame: Frame, result: Prediction) -> None:
        """Save what was found in one frame.

        Raises:
            OSError: the run folder cannot be written.
        """
        if self.config.save_images:
            self._write_picture(frame, result)
        if self.config.save_crop:
            self._write_crops(frame, result)
        if self.config.save_sr:
            save_png(self._path(frame, "sr", ".png"), result.sr.strips(), result.sr.shape)
        if self.config.save_mask and result.mask is not None and result.patch is not None:
            self._write_mask(frame, result.mask, result.patch)
        if self.config.save_txt and frame.seconds is not None:
            self._write_time(frame, len(result.boxes))
        if self.config.save_txt and len(result.boxes):
            lines = label_lines(result.boxes, frame.height, frame.width, self.config.save_conf)
            self._path(frame, "labels", ".txt").write_text(lines, encoding="utf-8")
            self.labels += 1
        if self._json:
            self._json.write((",\n" if self._json_entries else "\n") + json.dumps(self._entry(frame, result)))
            self._json_entries += 1
        self.objects += len(result.boxes)

    def _path(self, frame: Frame, subfolder: str, suffix: str) -> Path:
        """Path of a result, numbered for a video frame; its folder is created."""
        name = self.outputs[frame.file]
        number = "" if frame.index is None else f"_{frame.index}"
        path = self.folder / subfolder / name.parent / f"{name.name}{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _shown(self, frame: Frame, prediction: Prediction) -> tuple[np.ndarray, float]:
        """The SR image and its scale; the image itself where it ran in parts, whose SR image nobody could look at."""
        return (prediction.sr_image(), self.scale) if prediction.sr.held else (frame.image, 1)

    def _write_picture(self, frame: Frame, prediction: Prediction) -> None:
        """Boxes on what is shown, as a picture or as the next frame of the annotated video."""
        image, scale = self._shown(frame, prediction)
        boxes = prediction.boxes * np.array([scale] * 4 + [1, 1], np.float32)
        width, names, scores = self.config.line_width, not self.config.hide_labels, not self.config.hide_conf
        picture = draw_boxes(image, boxes, self.names, line_width=width, labels=names, scores=names and scores)
        if frame.file.is_video:
            name = self.outputs[frame.file]
            path = self.folder / name.parent / f"{name.name}.mp4"
            self._videos.write(path, picture, frame.fps, "use --save_images false")
            return
        jpeg = frame.file.path.suffix.lower() in JPEG_SUFFIXES and max(picture.shape) <= LARGEST_JPEG_SIDE
        path = self._path(frame, "", ".jpg" if jpeg else ".png")
        options: dict[str, Any] = {"quality": 95} if jpeg else {"compress_level": 1}
        Image.fromarray(picture).save(path, **options)

    def _write_time(self, frame: Frame, objects: int) -> None:
        """One line a frame in NAME_frames.csv: its number, seconds, and how many lines its label file has."""
        path = self.folder / "labels" / self.outputs[frame.file]
        path.parent.mkdir(parents=True, exist_ok=True)
        path = path.with_name(f"{path.name}_frames.csv")
        head = "" if path.exists() else "frame,seconds,objects\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{head}{frame.index},{frame.seconds:.6f},{objects}\n")

    def _write_crops(self, frame: Frame, prediction: Prediction) -> None:
        """What lies in each box, at the size of the picture, as crops/CLASS/NAME.png; further ones are NAME-2, ..."""
        sr, scale = self._shown(frame, prediction)
        for x1, y1, x2, y2, _, label in (prediction.boxes * np.array([scale] * 4 + [1, 1])).tolist():
            left, top = min(round(x1), sr.shape[1] - 1), min(round(y1), sr.shape[0] - 1)
            right, bottom = max(round(x2), left + 1), max(round(y2), top + 1)
            # A class may be called `traffic/light`, or `..`.
            name = re.sub(r"[^\w ().+-]", "_", self.names[int(label)]).strip(". ") or f"class {int(label)}"
            path, number = self._path(frame, f"crops/{name}", ".png"), 1
            while path.exists():
                number += 1
                path = self._path(frame, f"crops/{name}", f"-{number}.png")
            Image.fromarray(sr[top:bottom, left:right]).save(path, compress_level=1)

    def _write_mask(self, frame: Frame, mask: np.ndarray, patch: int) -> None:
        """White where SR_Quality ran, at the size of the image."""
        pixels = np.kron(mask, np.ones((patch, patch), bool))[: frame.height, : frame.width]
        Image.fromarray((pixels * 255).astype(np.uint8)).save(self._path(frame, "masks", ".png"))

    def _entry(self, frame: Frame, prediction: Prediction) -> dict[str, Any]:
        """What predictions.json says of one frame."""
        entry: dict[str, Any] = {"file": frame.file.name}
        if frame.index is not None:
            entry["frame"] = frame.index
        if frame.seconds is not None:
            entry["seconds"] = round(frame.seconds, 6)
        if prediction.reused_share is not None:
            entry["reused_share"] = round(prediction.reused_share, 6)
        kept = None if prediction.kept_share is None else round(prediction.kept_share, 6)
        detections = [
            {"class": label, "name": self.names[label], "score": round(score, 5), "box": [round(v, 3) for v in box]}
            for *box, score, label in ((*row[:5], int(row[5])) for row in prediction.boxes.tolist())
        ]
        entry |= {"width": frame.width, "height": frame.height, "kept_share": kept, "detections": detections}
        return entry
