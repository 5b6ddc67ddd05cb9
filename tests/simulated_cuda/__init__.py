"""A CUDA device simulated on the CPU: mixing devices raises, host synchronisations are counted, CUDA graphs replay.

    with SimulatedCuda(ROOT) as cuda:
        model.to("cuda")(x.to("cuda")).sum().item()
        print(cuda.report())          # what made the host wait for the device, and in which line
        with cuda.no_syncs(): ...     # here it raises

All tensors are ordinary CPU tensors. Those "on cuda:0" are known by their storage, which is tagged: `.device`,
`.is_cuda`, `.to`, `.cpu`, `.numpy` and factories with `device=` are patched to obey the tag, so that branches on
`device.type == "cuda"` run; and every ATen operation (below autograd and autocast) is looked at:

- tagged and other tensors in one operation raise as on a GPU (0-dimensional CPU tensors, CPU indices, copies are fine
  there);
- what makes the host wait (.item(), nonzero, boolean indices, pageable copies, ...) is counted with the project's line;
- what the host reads of a copy that was not waited for raises;
- between `torch.cuda.graph(...)` operations are recorded; what CUDA forbids there raises; `replay()` runs the records
  on the same memory, and raises where it would read memory that was freed since the capture.

Not simulated: the rounding of CUDA (TF32), kernels that only one of both devices has, memory limits, overlapping
streams. torch.autocast("cuda") is that of the CPU. Other threads than the one that entered see no device: load data
with workers 0.
"""

from tests.simulated_cuda.device import SimulatedCuda
from tests.simulated_cuda.storage import CaptureError, HostRace, HostSync, MixedDevices

__all__ = ["CaptureError", "HostRace", "HostSync", "MixedDevices", "SimulatedCuda"]
