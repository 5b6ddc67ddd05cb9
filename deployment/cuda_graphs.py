"""CUDA graphs: a call that was seen before costs one launch instead of one per layer.

A call is captured at the third sight of its shapes, since images of ever new sizes would only be captured and never
replayed. Before that it runs once under PyTorch's check for waits: what waits for the host cannot be captured, and a
capture that fails half way leaves the process in a state that nobody defines.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.device_constants import constants_read

MOST_GRAPHS = 64  # of one function; the one that was not used for longest goes
MOST_SEEN = 1024  # keys that are remembered without a graph
SIGHTS = 3  # the call at which a graph is captured
WARMUP = 3  # eager calls before capture, on a side stream, as PyTorch's documentation asks

_EAGER: ContextVar[bool] = ContextVar("eager", default=False)


@contextmanager
def eagerly() -> Iterator[None]:
    """Within, nothing is replayed: inside a larger capture, and where PyTorch's allocator shall see every tensor."""
    token = _EAGER.set(True)
    try:
        yield
    finally:
        _EAGER.reset(token)


def eager(call: Callable[[], object]) -> Callable[[], object]:
    """The call, under `eagerly`: what it takes of memory is then all seen by PyTorch's allocator."""

    def run() -> object:
        with eagerly():
            return call()

    return run


def warmup_rounds(inputs: int, device: torch.device, least: int) -> int:
    """Rounds before a measurement that takes so many inputs in turn, after which no graph is captured any more."""
    return inputs * SIGHTS if device.type == "cuda" else least


class GraphPool:
    """The memory that the graphs of one system share; their results are copied out before the next replay."""

    def __init__(self):
        self.handle = None

    def get(self):
        self.handle = torch.cuda.graph_pool_handle() if self.handle is None else self.handle
        return self.handle


@dataclass(frozen=True)
class Captured:
    """A graph, the memory that it reads and writes, and the constants that it reads."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: list[Tensor]


class CapturedCalls:
    """A function of tensors, replayed from one graph per key; eager where it cannot be captured.

    Args:
        name: for the message.
        pool: memory that is shared with other graphs.
    """

    def __init__(self, name: str, pool: GraphPool | None = None):
        self.name, self.pool = name, pool or GraphPool()
        self.graphs: OrderedDict[Hashable, Captured] = OrderedDict()
        self.seen: OrderedDict[Hashable, int] = OrderedDict()
        self.eager_because = ""

    def __deepcopy__(self, memo: dict) -> CapturedCalls:
        return CapturedCalls(self.name, self.pool)  # a graph is of the original's weights

    def __call__(
        self, key: Hashable, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """What the function gives; the results are the caller's own.

        Args:
            key: equal for calls of which nothing but the content of the inputs differs; shapes and types are added.
            function: on a CUDA device, with static control flow for a key.
            inputs: what it is called with, at least one tensor.
        """
        if self.eager_because or _EAGER.get():
            return function(*inputs)
        key = (key, *((tuple(x.shape), x.dtype) for x in inputs))
        captured = self.graphs.get(key)
        if captured is None:
            if not self._due(key):
                return function(*inputs)
            captured = self._capture(function, inputs)
            if captured is None:
                return function(*inputs)
            self._keep(key, captured)
        self.graphs.move_to_end(key)
        for static, x in zip(captured.inputs, inputs, strict=True):
            static.copy_(x)
        captured.graph.replay()
        return tuple(x.clone() for x in captured.outputs)  # the next replay writes into the graph's own memory

    def clear(self) -> None:
        """Let all graphs go, and with them their memory."""
        self.graphs.clear()
        self.seen.clear()
        self.pool.handle = None  # PyTorch takes a pool back with its last graph

    def _due(self, key: Hashable) -> bool:
        """Count this sight; whether a graph is worth its capture now."""
        self.seen[key] = self.seen.pop(key, 0) + 1
        if len(self.seen) > MOST_SEEN:
            self.seen.popitem(last=False)
        return self.seen[key] >= SIGHTS

    def _keep(self, key: Hashable, captured: Captured) -> None:
        if len(self.graphs) >= MOST_GRAPHS:
            self.graphs.popitem(last=False)
        self.graphs[key] = captured
        self.seen.pop(key, None)

    # An inference tensor could not be written to by later calls outside of that mode.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _capture(self, function: Callable, inputs: tuple[Tensor, ...]) -> Captured | None:
        """A graph for inputs like these; None where that is impossible, which is remembered."""
        static = tuple(_static(x) for x in inputs)
        stream = torch.cuda.Stream(inputs[0].device)
        stream.wait_stream(torch.cuda.current_stream(inputs[0].device))
        with eagerly():
            try:
                with torch.cuda.stream(stream):
                    for _ in range(WARMUP - 1):
                        function(*static)
                    with waits_are_errors():
                        function(*static)
            except torch.OutOfMemoryError:
                self.clear()
                raise
            except RuntimeError as error:
                self.eager_because = " ".join(str(error).split())[:160]
                warnings.warn(f"{self.name} runs without CUDA graphs: {self.eager_because}", stacklevel=4)
                return None
            torch.cuda.current_stream(inputs[0].device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may pin memory meanwhile, which a capture in the default mode forbids.
            with (
                constants_read() as constants,
                torch.cuda.graph(graph, pool=self.pool.get(), capture_error_mode="thread_local"),
            ):
                outputs = function(*static)
        return Captured(graph, static, outputs, constants)


def _static(x: Tensor) -> Tensor:
    """A copy of an input in memory that stays; images as the networks take them."""
    kind = torch.channels_last if x.dim() == 4 and x.is_floating_point() else torch.contiguous_format
    return torch.empty_like(x, memory_format=kind).copy_(x)


@contextmanager
def waits_are_errors() -> Iterator[None]:
    """Within, what makes the host wait for the device raises RuntimeError, as far as PyTorch sees it."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class GraphedNetwork(nn.Module):
    """The same network, replayed from a graph per input shape. All else is the network's.

    Args:
        network: inference network on a CUDA device, in evaluation mode, with static control flow per shape.
        pool: see CapturedCalls.
    """

    def __init__(self, network: nn.Module, pool: GraphPool | None = None):
        super().__init__()
        self.network = network
        self.calls = CapturedCalls(type(network).__name__, pool)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "network":  # while a copy is being made
                raise
            return getattr(self.network, name)

    def forward(self, x: Tensor, *size: tuple[int, int]) -> Tensor:
        """As the network; the result is the caller's own."""
        if size:  # shapes of an arbitrary-scale network are too many to keep
            return self.network(x, *size)
        return self.calls(None, lambda image: (self.network(image),), x)[0]
