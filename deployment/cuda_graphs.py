"""CUDA graphs of an SR network, one per input shape: a small call costs one launch instead of one per layer."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

MOST_GRAPHS = 64  # shapes of one image size are few by construction (see models/tiling/run_patches.py)
WARMUP = 3  # eager calls before capture, on a side stream, as PyTorch's documentation asks


class GraphedNetwork(nn.Module):
    """The same network, replayed from a graph per input shape; eager where capture fails. All else is the network's.

    Args:
        network: inference network on a CUDA device, in evaluation mode, with static control flow per shape.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self.pool = None
        self.failed: set[tuple] = set()

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
        key = (tuple(x.shape), x.dtype)
        if key not in self.graphs and (key in self.failed or not self._capture(key, x)):
            return self.network(x)
        graph, static, output = self.graphs[key]
        static.copy_(x)
        graph.replay()
        return output.clone()  # the next replay writes into the graph's own memory

    @torch.inference_mode(False)  # an inference tensor could not be written to by later calls outside of that mode
    @torch.no_grad()
    def _capture(self, key: tuple, x: Tensor) -> bool:
        """Record a graph for this shape; false where that is impossible."""
        static = torch.empty_like(x, memory_format=torch.channels_last).copy_(x)
        try:
            stream = torch.cuda.Stream(x.device)
            stream.wait_stream(torch.cuda.current_stream(x.device))
            with torch.cuda.stream(stream):
                for _ in range(WARMUP):
                    self.network(static)
            torch.cuda.current_stream(x.device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                output = self.network(static)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self.failed.add(key)
            warnings.warn(f"no CUDA graph for input {key[0]}, the network runs eagerly: {error}", stacklevel=2)
            return False
        self.pool = self.pool or graph.pool()
        if len(self.graphs) >= MOST_GRAPHS:
            del self.graphs[next(iter(self.graphs))]  # the oldest
        self.graphs[key] = (graph, static, output)
        return True
