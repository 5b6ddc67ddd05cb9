"""Which tensors are "on the device": ordinary CPU tensors whose storage is tagged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_flatten

if TYPE_CHECKING:
    from tests.simulated_cuda.device import SimulatedCuda

DEVICE, CPU = torch.device("cuda", 0), torch.device("cpu")


class MixedDevices(RuntimeError):
    """What PyTorch says on a GPU: Expected all tensors to be on the same device."""


class CaptureError(RuntimeError):
    """What CUDA forbids while a stream is captured, or a replay of a graph whose memory was freed."""


class HostSync(RuntimeError):
    """A host synchronisation within `no_syncs`."""


class HostRace(RuntimeError):
    """The host looks at memory that a copy which nobody waited for may still be writing."""


# Of storages on the device, by address; a weak reference keeps the address from being used anew.
TAGS: dict[int, StorageWeakRef] = {}
PINNED: dict[int, StorageWeakRef] = {}
PENDING: dict[int, StorageWeakRef] = {}  # of host memory that copies from the device are on their way to
CURRENT: list[SimulatedCuda] = []  # the one that was entered


def current() -> SimulatedCuda:
    return CURRENT[-1]


def storage_of(tensor: torch.Tensor):
    """Storage of a tensor, None where it has none (sparse, oneDNN)."""
    with torch._C.DisableTorchFunction():
        try:
            return tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return None


def on_cuda(tensor: torch.Tensor) -> bool:
    storage = storage_of(tensor)
    return storage is not None and storage._cdata in TAGS


def tag(tensor: torch.Tensor, tags: dict = TAGS) -> None:
    storage = storage_of(tensor)
    if storage is None or storage._cdata in tags or storage.device.type != "cpu":  # meta tensors stay what they are
        return
    if len(tags) % 1024 == 1023:
        for key in [key for key, ref in tags.items() if ref.expired()]:
            del tags[key]
    tags[storage._cdata] = StorageWeakRef(storage)


def check_arrived(*tensors: torch.Tensor) -> None:
    """Raises HostRace for a CPU tensor that the host may not look at yet."""
    if PENDING and any((s := storage_of(x)) is not None and s._cdata in PENDING for x in tensors):
        raise HostRace(f"read before the copy from the device was waited for, at {current().place()}")


def tensors_in(*values) -> list[torch.Tensor]:
    return [x for x in tree_flatten(values)[0] if isinstance(x, torch.Tensor)]


def is_cuda(device) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return isinstance(device, torch.device) and device.type == "cuda"
