"""A request to stop (Ctrl-C, SIGTERM) that waits until the step is made and can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While the body runs, SIGINT and SIGTERM are noted; the second one interrupts at once.

    Args:
        notes: False leaves the signals as they are, as it does outside the main thread.

    Attributes:
        asked: whether one came.
    """

    def __init__(self, notes: bool = True):
        self.notes, self.asked = notes and threading.current_thread() is threading.main_thread(), False
        self._before: dict = {}

    def __enter__(self) -> StopRequest:
        if self.notes:
            wanted = (number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)
            self._before = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # A signal to the whole group ends the data-loading processes, too, and the step fails for lack of data.
        if self.asked and isinstance(error, RuntimeError):
            raise KeyboardInterrupt from error

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def ignore_interrupts(worker: int) -> None:
    """For data-loading processes: Ctrl-C reaches them too, but the main process says when to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
