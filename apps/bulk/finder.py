"""What a worker does with a chunk of files: one model, all files one after the other, no file stops the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.bulk.file_list import source_files
from apps.bulk.tables import FAILED, OK, SKIPPED, FileResult

# From paths to their results, each of them once, in any order; it may raise.
Find = Callable[[list[Path]], Iterator[FileResult]]


@dataclass(frozen=True)
class System:
    """How to make a `Find` of a system, in the process that will run it.

    Args:
        model: arguments of `ConditionalYOLO`.
        policy, conf, iou, max_det, batch, max_pixels: see `ConditionalYOLO.predict`.
        threads: CPU threads of PyTorch.
    """

    model: dict[str, Any]
    policy: str | None = None
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    batch: int = 1
    max_pixels: int = 100_000_000
    threads: int = 1

    def __call__(self) -> Find:
        """Load the model. Raises UserError: it cannot be loaded, or does not know the policy."""
        from prediction.api import ConditionalYOLO
        from prediction.predictor import PredictOptions
        from utils.device import set_threads

        set_threads(self.threads)
        model = ConditionalYOLO(**self.model)
        options = PredictOptions(model.checked_policy(self.policy), self.conf, self.iou, self.max_det)

        def find(paths: list[Path]) -> Iterator[FileResult]:
            from data.sources import Skipped, read_frames

            frames = read_frames(source_files(paths), self.max_pixels)
            results: dict[Path, FileResult] = {path: FileResult(str(path)) for path in paths}
            shares: dict[Path, list[float]] = {path: [] for path in paths}
            for item in model.predictor.stream(frames, options, self.batch):
                if isinstance(item, Skipped):
                    result = results[item.file.path]
                    result.status, result.reason = SKIPPED, item.reason
                    continue
                frame, prediction = item
                result = results[frame.file.path]
                result.frames, result.width, result.height = result.frames + 1, frame.width, frame.height
                for *box, score, label in prediction.boxes.tolist():
                    result.boxes.append((frame.index, int(label), model.names[int(label)], score, *box))
                if prediction.kept_share is not None:
                    shares[frame.file.path].append(prediction.kept_share)
            for path, result in results.items():
                if shares[path]:
                    result.kept_share = sum(shares[path]) / len(shares[path])
                yield result

        return find


def results_of(find: Find, paths: list[Path]) -> list[FileResult]:
    """Every path's result; where the program fails, files are tried one by one, and the error is that of its file."""
    try:
        return list(find(paths))
    except Exception as error:  # a defect: it must cost one file, not a million
        if len(paths) == 1:
            return [FileResult(str(paths[0]), FAILED, f"{type(error).__name__}: {error}")]
        return [result for path in paths for result in results_of(find, [path])]


def check(results: list[FileResult], paths: list[Path]) -> list[FileResult]:
    """Raises AssertionError where a file has no result, or two."""
    assert sorted(result.path for result in results) == sorted(map(str, paths))
    assert all(result.status == OK or result.reason for result in results)
    return results
