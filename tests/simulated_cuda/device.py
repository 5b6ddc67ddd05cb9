"""The simulated device as a context: what of PyTorch is patched, and what is counted."""

from __future__ import annotations

import contextlib
import os
import sys
import types
from collections import Counter
from pathlib import Path

import torch
from torch.utils._python_dispatch import _disable_current_modes

from tests.simulated_cuda.graphs import Capture, FakeEvent, FakeGraph, FakeStream
from tests.simulated_cuda.operations import Functions, Operations
from tests.simulated_cuda.storage import (
    CPU,
    CURRENT,
    DEVICE,
    PENDING,
    PINNED,
    CaptureError,
    HostSync,
    check_arrived,
    is_cuda,
    on_cuda,
    storage_of,
    tag,
    tensors_in,
)

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARIES = ("ultralytics/", "accelerate/", "torch/optim/", "torch/amp/", "torch/nn/utils", "torch/nn/modules/module",
             "spandrel")  # fmt: skip


class SimulatedCuda:
    """Within, `torch.device("cuda")` works in this thread.

    Args:
        project: folder whose lines the counts name.

    Attributes:
        syncs: Counter of (what, place); launches, captures, replays: counts.
        unrepeatable: Counter of (operation, place) that gives other bits each time, where none of these is wanted.
        broken: a capture failed, after which a real device is in a state that nobody defines.
    """

    def __init__(self, project: str | Path = "."):
        self.project, self.forbid = str(Path(project).resolve()), False
        self.context, self.moving, self.recording = False, None, None
        self.reset()

    def reset(self) -> None:
        self.syncs: Counter = Counter()
        self.unrepeatable: Counter = Counter()
        self.broken = False
        self.launches = self.captures = self.replays = 0

    @contextlib.contextmanager
    def no_syncs(self):
        """A declared hot path: what makes the host wait raises HostSync."""
        before, self.forbid = self.forbid, True
        try:
            yield
        finally:
            self.forbid = before

    def wait(self, what: str) -> None:
        place = self.place()
        if self.recording is not None:
            raise CaptureError(f"operation not permitted when stream is capturing: {what} at {place}")
        if self.forbid:
            raise HostSync(f"{what} at {place}")
        self.syncs[what, place] += 1
        PENDING.clear()

    def place(self) -> str:
        """Innermost line of the project, and the innermost one of a library between it and PyTorch."""
        frame, inner = sys._getframe(2), None
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(self.project) and "/.venv/" not in file and not file.startswith(HERE):
                own = f"{os.path.relpath(file, self.project)}:{frame.f_lineno}"
                return f"{own} > {inner}" if inner else own
            if inner is None and any(name in file for name in LIBRARIES):
                inner = f"{'/'.join(file.split('/')[-2:])}:{frame.f_lineno}"
            frame = frame.f_back
        return inner or "?"

    def total(self) -> int:
        return sum(self.syncs.values())

    def report(self) -> str:
        lines = [f"{n:5} x {what:26} {place}" for (what, place), n in self.syncs.most_common()]
        head = f"{self.total()} syncs, {self.launches} launches, {self.captures} captures, {self.replays} replays"
        return "\n".join([head, *lines])

    # ------------------------------------------------------------------ patching

    def __enter__(self) -> SimulatedCuda:
        if CURRENT:
            raise RuntimeError("there is a simulated device already")
        CURRENT.append(self)
        self.undo: list[tuple] = []
        self._patch(torch.cuda, "_lazy_init", lambda: None)
        for name, value in self._cuda_functions().items():
            self._patch(torch.cuda, name, value)
        self._patch(torch.accelerator, "is_available", lambda: True)
        self._patch(torch.accelerator, "current_accelerator", lambda *_, **__: torch.device("cuda"))
        self._patch(torch.accelerator, "current_stream", FakeStream)
        self._patch(torch.accelerator, "current_device_index", lambda: 0)
        self._patch(
            torch._C, "_group_tensors_by_device_and_dtype", _grouped(torch._C._group_tensors_by_device_and_dtype)
        )
        self._patch(torch, "Generator", _generator_class(torch.Generator))
        self._patch_tensor()
        self._patch(torch.autograd, "backward", self._backward(torch.autograd.backward))
        autocast = torch.amp.autocast_mode.autocast
        self._patch(autocast, "__init__", _on_cpu(autocast.__init__))
        self.modes = contextlib.ExitStack()
        self.modes.enter_context(Operations())
        self.modes.enter_context(Functions())
        return self

    def __exit__(self, *error) -> None:
        self.modes.close()
        for place, name, value, own in reversed(self.undo):
            if own:
                setattr(place, name, value)
            else:
                delattr(place, name)
        CURRENT.pop()

    def _cuda_functions(self) -> dict:
        nothing, null = (lambda *_, **__: None), (lambda *_, **__: contextlib.nullcontext())
        zero, space = (lambda *_, **__: 0), (lambda *_: (1 << 34, 1 << 34))
        card = types.SimpleNamespace(
            name="Simulated CUDA", total_memory=1 << 34, multi_processor_count=1, major=9, minor=0
        )
        functions = {"is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: 1}
        functions |= {"current_device": zero, "synchronize": lambda *_: self.wait("torch.cuda.synchronize")}
        functions |= {"get_device_name": lambda *_: card.name, "get_device_capability": lambda *_: (9, 0)}
        functions |= {"get_device_properties": lambda *_: card, "is_bf16_supported": lambda *_, **__: True}
        functions |= dict.fromkeys(("set_device", "manual_seed", "manual_seed_all", "set_rng_state"), nothing)
        functions |= {"get_rng_state": lambda *_: torch.get_rng_state(), "get_rng_state_all": lambda: []}
        functions |= {"Stream": FakeStream, "Event": FakeEvent, "CUDAGraph": FakeGraph, "graph": Capture}
        functions |= {"current_stream": FakeStream, "default_stream": FakeStream, "stream": null, "device": null}
        functions |= dict.fromkeys(("empty_cache", "ipc_collect", "reset_peak_memory_stats"), nothing)
        functions |= dict.fromkeys(("memory_allocated", "max_memory_allocated", "memory_reserved"), zero)
        functions |= {"set_sync_debug_mode": self._set_debug_mode, "get_sync_debug_mode": lambda: 2 * self.forbid}
        functions |= {
            "graph_pool_handle": lambda: (0, 1),
            "is_current_stream_capturing": lambda: self.recording is not None,
        }
        return functions | {"mem_get_info": space}

    def _set_debug_mode(self, mode: str | int) -> None:
        self.forbid = mode in ("error", 2)

    def _patch_tensor(self) -> None:
        base, tensor = torch._C.TensorBase, torch.Tensor
        device, to, numpy, tolist = base.device, base.to, base.numpy, base.tolist

        def where(x):
            if on_cuda(x):
                return DEVICE
            with torch._C.DisableTorchFunction():
                return device.__get__(x)

        self._patch(tensor, "device", property(where))
        self._patch(tensor, "is_cuda", property(on_cuda))
        self._patch(tensor, "is_cpu", property(lambda x: where(x).type == "cpu"))
        self._patch(tensor, "get_device", lambda x: 0 if on_cuda(x) else -1)
        self._patch(tensor, "to", lambda x, *args, **kwargs: self._moved(to, x, *args, **kwargs))
        self._patch(tensor, "type_as", lambda x, other: x.to(other.device, other.dtype))
        self._patch(tensor, "cpu", lambda x, *_, **__: x.to(CPU))
        self._patch(tensor, "cuda", lambda x, *_, non_blocking=False, **__: x.to(DEVICE, non_blocking=non_blocking))
        self._patch(tensor, "is_pinned", lambda x, *_: storage_of(x)._cdata in PINNED)

        def to_numpy(x, *args, **kwargs):
            if on_cuda(x):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
            check_arrived(x)
            with torch._C.DisableTorchFunction():
                return numpy(x, *args, **kwargs)

        def to_array(x, dtype=None, copy=None):
            return to_numpy(x) if dtype is None else to_numpy(x).astype(dtype, copy=False)

        def to_list(x):
            if on_cuda(x):
                self.wait("tolist")
            check_arrived(x)
            with torch._C.DisableTorchFunction(), _disable_current_modes():
                return tolist(x)

        def pinned(x, *_):
            copy = x.clone()
            tag(copy, PINNED)
            return copy

        self._patch(tensor, "numpy", to_numpy)
        self._patch(tensor, "__array__", to_array)
        self._patch(tensor, "tolist", to_list)
        self._patch(tensor, "pin_memory", pinned)

    def _moved(self, to, x, *args, **kwargs):
        """Tensor.to."""
        other = args[0] if args and isinstance(args[0], torch.Tensor) else kwargs.get("other")
        if other is not None:
            args = (other.device, other.dtype, *args[1:]) if args else args
            kwargs = {key: value for key, value in kwargs.items() if key != "other"}
            kwargs |= {} if args else {"device": other.device, "dtype": other.dtype}
        copy, kwargs = kwargs.get("copy", False), {key: value for key, value in kwargs.items() if key != "copy"}
        with torch._C.DisableTorchFunction():  # else it would be told of another device, as factories are
            device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type not in ("cpu", "cuda"):
            with torch._C.DisableTorchFunction():
                return to(x, *args, copy=copy, **kwargs)
        here = on_cuda(x)
        there = here if device is None else device.type == "cuda"
        options = {"dtype": dtype or x.dtype} | ({} if layout is None else {"memory_format": layout})
        if here == there or x.is_meta:
            with torch._C.DisableTorchFunction():
                return to(x, copy=copy, **options)
        waits = not non_blocking or (there and storage_of(x)._cdata not in PINNED)
        if waits:
            what = "copy to device" if there else "copy to host"
            self.wait(what if not non_blocking else f"{what} (not pinned)")
        before, self.moving = self.moving, there
        try:
            with torch._C.DisableTorchFunction():
                moved = to(x, copy=True, **options)
        finally:
            self.moving = before
        if not waits and not there:
            tag(moved, PENDING)
        return moved

    def _backward(self, backward):
        """torch.autograd.backward, whose own new tensors lie where the losses do."""

        def run(tensors, *args, **kwargs):
            before, self.context = self.context, any(map(on_cuda, tensors_in(tensors)))
            try:
                return backward(tensors, *args, **kwargs)
            finally:
                self.context = before

        return run

    def _patch(self, place, name, value) -> None:
        own = name in vars(place)
        self.undo.append((place, name, vars(place).get(name), own))
        setattr(place, name, value)


def _on_cpu(init):
    """torch.autocast("cuda", ...) as that of the CPU, float16 by default as on CUDA."""

    def made(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.float16
        init(self, device_type, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)

    return made


def _grouped(group):
    """What foreach functions ask for: lists of tensors by (device, type)."""

    def run(*args):
        found = group(*args)
        return {
            (DEVICE if any(map(on_cuda, tensors_in(value[0]))) else key[0], key[1]): value
            for key, value in found.items()
        }

    return run


def _generator_class(base: type) -> type:
    """torch.Generator, where one of "cuda" is one of the CPU."""

    class Kind(type):
        def __instancecheck__(cls, instance):
            return isinstance(instance, base)

    class Generator(metaclass=Kind):
        def __new__(cls, device="cpu"):
            return base("cpu" if is_cuda(device) else device)

    return Generator
