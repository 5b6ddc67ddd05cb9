"""Writes the calls that Python makes of the kernel to files, for tests/deployment/native/replay.cpp to make again."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

from deployment.native.interface import Kernel, KernelCall, Step


def span(strides: list[int], shape: list[int]) -> int:
    """Elements from the first of an image to its last."""
    return 1 + sum(stride * (size - 1) for stride, size in zip(strides, shape, strict=True))


class RecordingKernel:
    """Runs every job and writes it, with all that it reads and the HR images before and after, to a file of its own.

    The sizes in the file are the smallest that hold the job, so that a replay sees every access beyond.
    """

    def __init__(self, kernel: Kernel, bf16: bool, folder: Path, name: str):
        self.kernel, self.bf16, self.folder, self.name = kernel, bf16, folder, name
        self.files: list[Path] = []

    def __call__(self, job: KernelCall, steps: ctypes.Array[Step]) -> None:
        exact = KernelCall.from_buffer_copy(job)
        exact.mask_bytes = job.batch * job.rows * job.columns
        exact.lr_bytes = 4 * span(job.lr_stride, [job.batch, 3, job.height, job.width])
        hr_shape = [job.batch, 3, job.scale * job.height, job.scale * job.width]
        exact.hr_bytes = (2 if job.hr_bf16 else 4) * span(job.hr_stride, hr_shape)
        parts = [struct.pack("ii", self.bf16, 0), bytes(exact), bytes(steps)]
        parts += [ctypes.string_at(array, 4 * job.canvases) for array in (job.channels, job.reach)]
        parts += [ctypes.string_at(job.mask, exact.mask_bytes), ctypes.string_at(job.lr, exact.lr_bytes)]
        for step in steps:
            parts += [ctypes.string_at(step.weight, step.weight_bytes)]
            parts += [ctypes.string_at(step.bias, step.bias_bytes)]
        parts.append(ctypes.string_at(job.hr, exact.hr_bytes))
        self.kernel(job, steps)
        parts.append(ctypes.string_at(job.hr, exact.hr_bytes))
        self.files.append(self.folder / f"{self.name}-{len(self.files)}.job")
        self.files[-1].write_bytes(b"".join(parts))
