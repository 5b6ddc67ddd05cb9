"""CUDA graphs, streams and events of the simulated device."""

from __future__ import annotations

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

from tests.simulated_cuda.operations import is_view
from tests.simulated_cuda.storage import DEVICE, CaptureError, current, storage_of, tensors_in


class _Outside:
    """A tensor that was there before the capture, without keeping its memory."""

    def __init__(self, tensor: torch.Tensor, func):
        self.ref = StorageWeakRef(storage_of(tensor))
        self.place = (tensor.storage_offset(), tensor.size(), tensor.stride())
        self.dtype, self.func = tensor.dtype, func

    def tensor(self) -> torch.Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.ref.cdata)
        if storage is None:
            shape = tuple(self.place[1])
            raise CaptureError(f"a replay reads memory that was freed since the capture: {shape} of {self.func}")
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.place)


class FakeGraph:
    """Records operations and replays them on the same memory."""

    def __init__(self, *_, **__):
        self.records, self.made = [], set()

    def pool(self):
        return (0, 1)

    def reset(self):
        self.records.clear()

    def record(self, func, args, kwargs, out) -> None:
        tensors, outputs = tensors_in(args, kwargs), tensors_in(out)
        if is_view(func, tensors, out):
            return
        known = {storage_of(x)._cdata for x in tensors}

        def kept(x):
            outside = isinstance(x, torch.Tensor) and storage_of(x)._cdata not in self.made
            return _Outside(x, func) if outside else x

        writes = func._schema.is_mutable
        self.records.append((func, *tree_map(kept, (args, kwargs)), None if writes else outputs))
        self.made |= set() if writes else {storage_of(x)._cdata for x in outputs} - known

    def replay(self) -> None:
        current().replays += 1
        current().launches += 1

        def there(x):
            return x.tensor() if isinstance(x, _Outside) else x

        with torch.no_grad(), torch._C.DisableTorchFunction(), _disable_current_modes():
            for func, args, kwargs, outputs in self.records:
                new = func(*tree_map(there, args), **tree_map(there, kwargs))
                for old, fresh in zip(outputs or (), tensors_in(new)):
                    old.copy_(fresh)


class Capture:
    """torch.cuda.graph; what goes wrong inside leaves the device in a bad state, as on a GPU."""

    def __init__(self, graph: FakeGraph, **_):
        self.graph = graph

    def __enter__(self):
        current().recording = self.graph
        current().captures += 1

    def __exit__(self, kind, *error):
        current().recording = None
        current().broken |= kind is not None
        return False


class FakeStream:
    def __init__(self, *_, **__):
        self.device, self.cuda_stream = DEVICE, 0

    def wait_stream(self, other):
        pass

    wait_event = record_event = wait_stream

    def synchronize(self):
        current().wait("stream.synchronize")

    def is_capturing(self):
        return current().recording is not None


class FakeEvent(FakeStream):
    def record(self, *_):
        pass

    def wait(self, *_):
        pass

    def query(self):
        return True

    def elapsed_time(self, other):
        return 1.0
