"""training/prefetch.py: the same results in the same order, exceptions in their places, no thread left behind."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.prefetch import prefetch


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@given(st.lists(st.integers(), max_size=20), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_same_results_in_order(numbers: list[int], ahead: int):
    assert list(prefetch(numbers, lambda x: 2 * x, ahead)) == [2 * x for x in numbers]
    assert not threads()


def test_works_ahead_but_not_further():
    began = [threading.Event() for _ in range(6)]

    def prepare(k: int) -> int:
        began[k].set()
        return k

    stream = prefetch(range(6), prepare)
    assert next(stream) == 0
    assert began[2].wait(5), "one waits in the queue, the next is made"
    assert not began[4].wait(0.3)
    stream.close()
    assert not threads()


@pytest.mark.parametrize("bad", [0, 2, 4])
def test_exceptions_come_in_their_place(bad: int):
    def prepare(k: int) -> int:
        if k == bad:
            raise OSError(f"image {k}")
        return k

    seen = []
    with pytest.raises(OSError, match=f"image {bad}"):
        for value in prefetch(range(5), prepare):
            seen.append(value)
    assert seen == list(range(bad)) and not threads()


def test_the_source_may_fail_too():
    def source():
        yield 1
        raise KeyError("worker died")

    stream = prefetch(source(), str)
    assert next(stream) == "1"
    with pytest.raises(KeyError, match="worker died"):
        next(stream)


def test_a_stream_that_is_left_ends_its_thread():
    stream = prefetch(iter(int, 1), abs)  # endless
    assert [next(stream) for _ in range(3)] == [0, 0, 0]
    del stream
    assert not threads()
