"""How far a long loop is, for the eye: a bar on a terminal, elsewhere a line now and then, both with the time left."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from tqdm import tqdm


class ProgressBar:
    """tqdm's bar on stderr where that is a terminal; else a line on stdout every `every` seconds.

    Args:
        total: steps of the loop.
        label: what is going on.
        initial: steps that are already done.
        show: False shows nothing.
        every: seconds between two lines.
    """

    def __init__(self, total: int, label: str, initial: int = 0, show: bool = True, every: float = 30.0):
        self.total, self.label, self.initial, self.done = total, label, initial, initial
        terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=label, initial=initial) if show and terminal else None
        self.lines, self.every = show and not terminal, every
        self.began = self.said = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, note: str = "") -> None:
        """One step more is done; `note` stands behind the bar."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update()
        elif self.lines and self.done < self.total and time.monotonic() - self.said >= self.every:
            self.said = time.monotonic()
            print(f"{self.label}: {self.done}/{self.total}, {self.left()} left{note and ', '}{note}", flush=True)

    def left(self) -> str:
        """Time that the remaining steps will take at the mean speed so far, as h:mm:ss."""
        speed = (time.monotonic() - self.began) / max(1, self.done - self.initial)
        return str(timedelta(seconds=round(speed * (self.total - self.done))))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
