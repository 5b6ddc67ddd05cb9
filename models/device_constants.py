"""Tensors that depend on sizes alone are made once for each device, and kept while a CUDA graph reads them.

A graph holds addresses, no tensors: what a cache lets go while a graph still reads it would be overwritten unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import TypeVar

import torch
from torch import Tensor

from utils.device import sent

MOST_KEPT = 256  # small tensors by content

_READ: ContextVar[list[Tensor] | None] = ContextVar("read", default=None)
Made = TypeVar("Made", Tensor, tuple[Tensor, Tensor])


@contextmanager
def constants_read() -> Iterator[list[Tensor]]:
    """The constants that are asked for inside."""
    read: list[Tensor] = []
    token = _READ.set(read)
    try:
        yield read
    finally:
        _READ.reset(token)


def device_constant(most: int) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """Decorator for a function of hashable values that makes a tensor, or several: the last `most` of them are kept.

    They are no inference tensors, which could not serve a later training step.
    """

    def decorate(make: Callable[..., Made]) -> Callable[..., Made]:
        cached = lru_cache(most)(torch.inference_mode(False)(make))

        @wraps(make)
        def constant(*args) -> Made:
            made = cached(*args)
            read = _READ.get()
            if read is not None:
                read += made if isinstance(made, tuple) else (made,)
            return made

        constant.cache_info, constant.cache_clear = cached.cache_info, cached.cache_clear  # type: ignore[attr-defined]
        return constant

    return decorate


def on_device(host: Tensor, device: torch.device) -> Tensor:
    """A small CPU tensor on the device; nothing waits where one of the same content was asked for before."""
    if device.type != "cuda" or not host.numel():
        return host.to(device)
    return _copied(host.contiguous().numpy().tobytes(), tuple(host.shape), host.dtype, device)


@device_constant(MOST_KEPT)
def _copied(content: bytes, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return sent(torch.frombuffer(bytearray(content), dtype=dtype).view(shape), device)
