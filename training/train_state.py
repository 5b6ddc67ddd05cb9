"""The training state of a run on the disk, the newest and the one before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from training.stop_request import StopRequest
from utils.atomic_file import remove_leftovers
from utils.checkpoint import CheckpointError, load_checkpoint, save_checkpoint


class TrainState:
    """The training state of a run: last.pth, and previous.pth in case last.pth turns out damaged.

    Args:
        folder: where both files live; created by the first save.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.last = self.folder / "last.pth"
        self.previous = self.folder / "previous.pth"
        self._keep_last = True

    def save(self, payload: dict[str, Any]) -> None:
        """Write last.pth; the one before becomes previous.pth. Only one process may save.

        A request to stop waits for its end.

        Raises:
            CheckpointError: the folder cannot be written, or the disk is full; both files are then as they were.
            KeyboardInterrupt: afterwards, where such a request came.
        """
        remove_leftovers(self.last)
        # A damaged last.pth must not push the good previous.pth out.
        with StopRequest() as stop:
            try:
                save_checkpoint(self.last, payload, keep_as=self.previous if self._keep_last else None)
            except OSError as error:
                why = f"cannot be written ({error.strerror or error}), the checkpoint before it is good"
                raise CheckpointError(f"{self.last}: {why}; mend that, then --run.resume true goes on") from error
        self._keep_last = True
        if stop.asked:
            raise KeyboardInterrupt

    def load_newest(self) -> tuple[dict[str, Any], Path] | None:
        """The newest good state and its file; None if there is none yet. A damaged file is named on stderr and skipped.

        Raises:
            CheckpointError: there are files, but none is good: training must not start again unnoticed.
        """
        present = [path for path in (self.last, self.previous) if path.exists()]
        for path in present:
            try:
                return load_checkpoint(path), path
            except CheckpointError as error:
                print(f"warning: skipped {error}", file=sys.stderr, flush=True)
                self._keep_last = False
        if present:
            raise CheckpointError(
                f"{self.folder}: no good training state left ({', '.join(path.name for path in present)} damaged); "
                "delete the run folder to train from the start"
            )
        return None
