"""Systems made ready for inference on one device in one precision: the fastest execution that works here, same result.

On CPUs convolutions are fused (deployment/fused_inference.py) or, for EDSR, native where that was built and is faster
(deployment/native_execution.py); on CUDA calls are replayed from graphs (deployment/cuda_graphs.py). What cannot
be had is left out, and `how` says so.

Backends on CPUs: `native` (fused PyTorch; native kernels where they are faster here), `torch` (fused PyTorch alone),
`openvino` (detector and every SR network that can be traced), `auto` (the fastest of these here). With `torch` and
`openvino` nothing is measured, so the same computation runs every time.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from deployment.cuda_graphs import GraphedNetwork, GraphPool
from deployment.fastest import REPEATS, fastest_ms
from deployment.fused_inference import FusionError, fuse
from deployment.graphed_calls import GraphedCalls
from deployment.native.build import NativeError
from deployment.native_execution import NativeNetwork
from deployment.network_memory import activation_bytes
from deployment.openvino_backend import chosen, converted, may_be_openvino
from deployment.prepare_detector import drawn_image, prepare_detector
from models.calls import EAGER, Calls
from models.front_end import FrontEnd
from models.system import ConditionalSRDetector
from models.tiling.run_patches import run_on_tiles
from utils.device import dtype_name
from utils.errors import UserError

# About what one more call of SR_Quality costs, in LR pixels of its computing time (CPU: measured for EDSR). On CUDA it
# matters only to networks whose windows fade into each other; others run in one window a patch, see Execution.counted.
OVERHEAD = {"cpu": 256.0, "cuda": 8192.0}
NATIVE_GAIN = 0.95  # of the rival's time: what is hardly faster is not worth another way of rounding


class PreparedNetwork(nn.Module):
    """A network on its device, in its precision; takes images of any type. All else is that of the original, of which
    only what it says of itself is kept: its weights are let go.

    Args:
        network: what runs.
        original: the network that it was made of.
        dtype: of the computation.
        how: one line for the log.
    """

    def __init__(self, network: nn.Module, original: nn.Module, dtype: torch.dtype, how: str):
        super().__init__()
        self.network, self.dtype, self.how = network, dtype, how
        self.original = (without_weights(original),)  # in a tuple: its tensors are no part of this module

    def forward(self, lr: Tensor, *size: tuple[int, int], **place: Tensor) -> Tensor:
        return self.network(lr.to(self.dtype, memory_format=torch.channels_last), *size, **place)

    def with_seed(self, seed: int) -> PreparedNetwork:
        """See `Capabilities.stochastic`."""
        return PreparedNetwork(self.network.with_seed(seed), self, self.dtype, self.how)

    def tiled(self, lr: Tensor, size: tuple[int, int], tile: int, halo: int) -> Tensor:
        """See `Capabilities.tiling`; only networks that run as they are have tiles of their own."""
        return self.network.tiled(lr.to(self.dtype), size, tile, halo)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "original" not in self.__dict__:  # while a copy is being made
                raise
            return getattr(self.original[0], name)


def without_weights(network: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have shapes alone (on the meta device); takes no memory to make."""
    if isinstance(network, PreparedNetwork):
        return network.original[0]
    parameters = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in network.parameters()}
    return deepcopy(network, parameters | {id(b): b.to("meta") for b in network.buffers()})


def prepare_network(
    network: nn.Module, device: torch.device, dtype: torch.dtype, pool: GraphPool | None = None
) -> PreparedNetwork:
    """Inference copy of a network (B, 3, h, w) -> Tensor on a device.

    Args:
        network: in evaluation mode.
        device: CPU or CUDA.
        dtype: torch.float32, torch.bfloat16 or (CUDA) torch.float16.
        pool: memory of the graphs on CUDA.
    """
    name = dtype_name(dtype)
    if device.type == "cpu":
        try:
            fused = fuse(deepcopy(network).cpu(), dtype)
            return PreparedNetwork(fused, network, dtype, f"fused oneDNN convolutions, {name}")
        except FusionError as error:
            how = f"eager, {name} ({error})"
    else:
        how = f"CUDA graphs, {name}"
    copy = deepcopy(network).to(device, dtype).to(memory_format=torch.channels_last)
    if dtype != torch.float32:
        try:
            with torch.no_grad():
                copy(torch.zeros(1, 3, 16, 16, device=device, dtype=dtype))
                if dtype == torch.float16 and not copy(drawn_image(32, device, dtype)).isfinite().all():
                    prepared = prepare_network(network, device, torch.bfloat16, pool)
                    prepared.how += " (float16 overflows)"
                    return prepared
        except RuntimeError as error:  # layers that mix types
            copy, how = copy.float(), f"eager, float32 (in {name}: {' '.join(str(error).split())[:80]})"
            return PreparedNetwork(copy, network, torch.float32, how)
    return PreparedNetwork(GraphedNetwork(copy, pool) if device.type == "cuda" else copy, network, dtype, how)


def prepare_system(
    system: ConditionalSRDetector,
    device: torch.device,
    dtype: torch.dtype,
    memory_mb: int = 1024,
    backend: str = "native",
) -> ConditionalSRDetector:
    """Inference copy of a system: the same `super_resolve` and `predict`, faster.

    Args:
        system: in evaluation mode.
        device: CPU or CUDA.
        dtype: of networks and detector; boxes are decoded in fp32 all the same.
        memory_mb: about what one call of an SR network may take, besides the HR image itself; larger images are
            computed in parts.
        backend: see above.

    Returns:
        A system for inference only; `how_it_runs` says what was chosen.

    Raises:
        UserError: the backend is openvino, which is not installed, or cannot run the detector, or not on this device.
    """
    preparation = InferencePreparation(device, dtype, memory_mb, backend)
    return system.with_detector(prepare_detector(system.detector, device, dtype, backend), preparation)


def prepare_front(front: FrontEnd, device: torch.device, dtype: torch.dtype, memory_mb: int = 1024) -> FrontEnd:
    """Inference copy of a front end alone; see `prepare_system`."""
    return front.prepared(InferencePreparation(device, dtype, memory_mb))


@dataclass(frozen=True)
class InferencePreparation:
    """Makes inference copies for one device; see models/front_end.py.

    Args:
        device: CPU or CUDA.
        dtype: of the computation.
        memory_mb, backend: see `prepare_system`.
        pool: memory that the graphs share.
    """

    device: torch.device
    dtype: torch.dtype
    memory_mb: int = 1024
    backend: str = "native"
    pool: GraphPool = field(default_factory=GraphPool, compare=False)

    @property
    def overhead(self) -> float:
        """See `TileOptions.overhead`."""
        return OVERHEAD[self.device.type]

    @property
    def counted(self) -> bool:
        """See `Execution.counted`."""
        return self.device.type == "cuda"

    def calls(self) -> Calls:
        """Graphs on CUDA."""
        return GraphedCalls(self.pool) if self.device.type == "cuda" else EAGER

    def network(self, network: nn.Module) -> PreparedNetwork:
        """Inference copy of an SR network, as far as its capabilities allow."""
        can, name = network.capabilities, dtype_name(self.dtype)
        if can.quantised:
            return self.quantised(network)
        if self.dtype not in can.dtypes:
            how = f"eager, float32 (not made for {name})"
            return PreparedNetwork(deepcopy(network).to(self.device).float(), network, torch.float32, how)
        if not can.traceable:
            how = f"eager, {name} (several steps, or chance)"
            return PreparedNetwork(deepcopy(network).to(self.device, self.dtype), network, self.dtype, how)
        prepared = self.module(network)
        if can.takes_size or not may_be_openvino(self.backend, self.device):
            return prepared
        return with_openvino(network, prepared, self.backend)

    def quantised(self, network: nn.Module) -> PreparedNetwork:
        """A network of integers as it is: on whole images the native kernel takes its place, see `in_place`."""
        how, copy = "int8 by PyTorch, fp32 around it", deepcopy(network).to(self.device)
        return PreparedNetwork(copy, network, torch.float32, how)

    def module(self, module: nn.Module) -> PreparedNetwork:
        """See `prepare_network`."""
        return prepare_network(module, self.device, self.dtype, self.pool)

    def in_place(
        self, network: nn.Module, prepared: PreparedNetwork, patch: int, halo: int | None
    ) -> tuple[NativeNetwork | None, PreparedNetwork]:
        """See `choose_native`; there is no native kernel elsewhere than on CPUs."""
        if self.device.type != "cpu" or self.backend in ("torch", "openvino"):
            return None, prepared
        if network.capabilities.quantised:
            return native_int8(network, prepared)
        return choose_native(network, prepared, patch, halo)

    def runner(self, network: nn.Module) -> NativeNetwork:
        """The native kernel. Raises NativeError where it cannot run this network."""
        return NativeNetwork(network, self.dtype)

    def max_pixels(self, *networks: nn.Module) -> int:
        """Most LR pixels in one call of the heaviest of the networks."""
        heaviest = max(activation_bytes(network, self.dtype) for network in networks)
        return max(1, int(self.memory_mb * 1e6 / heaviest))


def how_it_runs(system: ConditionalSRDetector) -> str:
    """One line for the log: what was chosen for each network of a prepared system, or of another method."""
    networks = getattr(system.front, "networks", {})  # slices have none
    lines = [f"{role}: {network.how}" for role, network in networks.items()]
    return "; ".join([*lines, f"detector: {system.detector.how}"])


def native_int8(network: nn.Module, prepared: PreparedNetwork) -> tuple[NativeNetwork | None, PreparedNetwork]:
    """The native int8 kernel, where it was built, on patches and on whole images: the same image as PyTorch's, sooner.

    Args:
        network: the original, in evaluation mode.
        prepared: its inference copy on the CPU.
    """
    try:
        native = NativeNetwork(network, torch.float32)
    except NativeError as error:
        return None, PreparedNetwork(prepared.network, prepared, prepared.dtype, f"{prepared.how}, {error}")
    return native, PreparedNetwork(native, prepared, torch.float32, "int8 by the native kernel, fp32 around it")


def choose_native(
    network: nn.Module, prepared: PreparedNetwork, patch: int, halo: int | None, repeats: int = REPEATS
) -> tuple[NativeNetwork | None, PreparedNetwork]:
    """The native kernel where it exists and is faster than the prepared network here: on a patch, on whole images.

    Args:
        network: the original, in evaluation mode.
        prepared: its inference copy on the CPU.
        patch, halo: as it will be run.
        repeats: the fastest of so many runs counts.

    Returns:
        What to run on patches, None for tiles of the prepared network; and what to run on whole images, whose `how`
        tells the decision.
    """
    try:
        native = NativeNetwork(network, prepared.dtype)
    except NativeError as error:
        return None, PreparedNetwork(prepared.network, prepared, prepared.dtype, f"{prepared.how}, {error}")
    lr = torch.rand(1, 3, 2 * patch, 2 * patch, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[[True, False], [False, False]]])
    canvas = torch.empty(1, 3, *(side * native.scale for side in lr.shape[2:]), dtype=prepared.dtype)
    rivals = {
        "tiles": lambda: run_on_tiles(prepared, lr, mask, patch, halo, canvas),
        "patches": lambda: native.run(lr, mask, patch, halo, canvas),
        "fused": lambda: prepared(lr),
        "dense": lambda: native(lr),
    }
    best = fastest_ms(rivals, repeats)
    patches = best["patches"] < NATIVE_GAIN * best["tiles"]
    dense = best["dense"] < NATIVE_GAIN * best["fused"]
    how = (
        f"{prepared.how}, native kernel {'taken' if patches else 'left'} on patches "
        f"({best['patches']:.3g} against {best['tiles']:.3g} ms) and {'taken' if dense else 'left'} on whole images "
        f"({best['dense']:.3g} against {best['fused']:.3g} ms)"
    )
    chosen = PreparedNetwork(native if dense else prepared.network, prepared, prepared.dtype, how)
    return native if patches else None, chosen


def with_openvino(network: nn.Module, prepared: PreparedNetwork, backend: str) -> PreparedNetwork:
    """A network run by OpenVINO, where it can be traced and, with the backend auto, is faster; else as prepared."""
    dtype = prepared.dtype

    def make() -> PreparedNetwork:
        return PreparedNetwork(converted(network, prepared, dtype), prepared, dtype, f"OpenVINO, {dtype_name(dtype)}")

    if backend == "auto":
        lr = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        best, how = chosen(prepared, make, lambda one: one(lr))
        return PreparedNetwork(best.network, prepared, dtype, f"{best.how}, {how}")
    try:
        return make()
    except UserError as error:
        return PreparedNetwork(prepared.network, prepared, dtype, f"{prepared.how}, no OpenVINO: {str(error)[:120]}")
