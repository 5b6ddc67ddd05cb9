"""The next batch is made ready in a thread while the present one is computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Source, Ready = TypeVar("Source"), TypeVar("Ready")


def prefetch(source: Iterable[Source], prepare: Callable[[Source], Ready], ahead: int = 1) -> Iterator[Ready]:
    """`map(prepare, source)` in the same order, with up to `ahead` + 1 results made in advance by a thread.

    PyTorch releases the interpreter while it computes, so receiving a batch and converting it cost a training step
    nothing. `iter(source)` runs in the caller's thread; an exception of source or prepare comes where its result would
    have; the thread ends with the iterator, exhausted or closed.
    """
    iterator = iter(source)
    made: queue.Queue = queue.Queue(ahead)
    stop = threading.Event()

    def put(item) -> bool:
        while not stop.is_set():
            try:
                made.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in iterator:
                if not put((prepare(item), None)):
                    return
        except BaseException as error:  # handed over, whatever it is
            put((None, error))
        else:
            put(None)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            ready, error = item
            if error is not None:
                raise error
            yield ready
    finally:
        stop.set()
        thread.join()
