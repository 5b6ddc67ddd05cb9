"""Every ATen operation is looked at: mixed devices raise, host waits are counted, captures are recorded."""

from __future__ import annotations

import torch
import torch._dynamo  # before anything is patched: it is imported late otherwise
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.simulated_cuda.storage import (
    CPU,
    PENDING,
    PINNED,
    MixedDevices,
    check_arrived,
    current,
    is_cuda,
    on_cuda,
    storage_of,
    tag,
    tensors_in,
)

aten = torch.ops.aten

INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default,
           aten._unsafe_index.Tensor, aten._unsafe_index_put.default}  # fmt: skip
WAITS = {
    "aten::_local_scalar_dense": "item",
    "aten::nonzero": "nonzero",
    "aten::masked_select": "masked_select",
    "aten::_unique2": "unique",
    "aten::unique_dim": "unique",
    "aten::unique_consecutive": "unique",
    "aten::bincount": "bincount",
    "aten::equal": "equal",
    "torchvision::nms": "nms",
}
# On CUDA these have no algorithm that repeats exactly (see torch.use_deterministic_algorithms).
UNREPEATABLE = {
    "aten::_adaptive_avg_pool2d_backward", "aten::adaptive_max_pool2d_backward", "aten::avg_pool3d_backward",
    "aten::grid_sampler_2d_backward", "aten::grid_sampler_3d_backward", "aten::histc", "aten::kthvalue",
    "aten::max_unpool2d", "aten::median", "aten::nll_loss_forward", "aten::nll_loss2d_forward", "aten::put_",
    "aten::reflection_pad1d_backward", "aten::reflection_pad2d_backward", "aten::replication_pad2d_backward",
    "aten::upsample_linear1d_backward", "aten::upsample_bilinear2d_backward", "aten::upsample_bicubic2d_backward",
    "aten::upsample_trilinear3d_backward", "aten::_upsample_bilinear2d_aa_backward",
    "aten::_upsample_bicubic2d_aa_backward",
}  # fmt: skip
LIFTS = ("aten::lift_fresh", "aten::lift", "aten::lift_fresh_copy")


class Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        key = torch._C.DispatchKey.CompositeImplicitAutograd
        if torch.is_inference_mode_enabled() and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key):
            with self:  # in inference mode these come whole; what they consist of comes here again
                return func._op_dk(key, *args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            return _operation(current(), func, args, kwargs or {})


def _operation(sim, func, args, kwargs):
    tensors = tensors_in(args, kwargs)
    tagged = [x for x in tensors if on_cuda(x)]
    name = func._schema.name
    if not tensors and is_cuda(kwargs.get("device")):  # a factory that no function mode saw
        target, kwargs = True, kwargs | {"device": CPU}
    elif not tensors or name in LIFTS:
        target = sim.context  # a factory: on the device if it was asked for there, or is part of a function on it
        if target and name in LIFTS:
            sim.wait("copy to device")
    elif sim.moving is not None and func is aten._to_copy.default:
        target = sim.moving
    else:
        target = bool(tagged)
        _check_devices(func, args, tensors, tagged)
        if tagged:
            weighted = name == "aten::bincount" and len(args) > 1 and args[1] is not None
            if torch.are_deterministic_algorithms_enabled() and (name in UNREPEATABLE or weighted):
                sim.unrepeatable[name, sim.place()] += 1
            _note_wait(sim, func, name, args, kwargs, tagged)
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}
    out = func(*args, **kwargs)
    if PENDING and not is_view(func, tensors, out):
        check_arrived(*tensors)
    if target:
        sim.launches += not is_view(func, tensors, out)
        for x in tensors_in(out):
            tag(x)
        if sim.recording is not None:
            sim.recording.record(func, args, kwargs, out)
    return out


def is_view(func, tensors, out) -> bool:
    outputs = tensors_in(out)
    if func._schema.is_mutable or not outputs:
        return False
    known = {s._cdata for s in map(storage_of, tensors) if s is not None}
    return all((s := storage_of(x)) is not None and s._cdata in known for x in outputs)


def _check_devices(func, args, tensors, tagged) -> None:
    plain = [x for x in tensors if x.dim() > 0 and not on_cuda(x) and x.device.type == "cpu"]
    if not tagged or not plain or func is aten.copy_.default:
        return
    if func in INDEXED:
        if not on_cuda(args[0]):
            raise MixedDevices(f"{func}: indices should be on the same device as the indexed tensor (cpu)")
        values = args[2] if len(args) > 2 and isinstance(args[2], torch.Tensor) else None
        if values is None or on_cuda(values) or values.dim() == 0:
            return  # CPU indices of a CUDA tensor are copied to it
    shapes = [f"{'cuda:0' if on_cuda(x) else 'cpu'} {tuple(x.shape)}" for x in tensors]
    raise MixedDevices(f"Expected all tensors to be on the same device, but {func} got {', '.join(shapes)}")


def _note_wait(sim, func, name, args, kwargs, tagged) -> None:
    what = WAITS.get(name)
    if func is aten.copy_.default and len(tagged) == 1:
        to_device = on_cuda(args[0])
        what = None if to_device and args[1].dim() == 0 else "copy to device" if to_device else "copy to host"
    elif func in INDEXED:
        indices = [x for x in args[1] if x is not None]
        value = args[2] if len(args) > 2 else None
        fills = isinstance(value, torch.Tensor) and value.numel() == 1 and len(indices) == 1  # becomes masked_fill
        if any(x.dtype in (torch.bool, torch.uint8) for x in indices) and not fills:
            what = "boolean index"
        elif any(not on_cuda(x) for x in indices):
            what = "copy to device (CPU index)"
    elif name == "aten::repeat_interleave" and kwargs.get("output_size") is None and func._overloadname == "Tensor":
        what = "repeat_interleave"
    if what is not None:
        sim.wait(what)


class Functions(TorchFunctionMode):
    """What Python calls: tells factories where to create, and operations inside a function what it works on."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        sim, kwargs = current(), dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "untyped_storage", "size", "dim", "stride", "is_floating_point", "numel"):
            return func(*args, **kwargs)
        asked = kwargs.get("device")
        if is_cuda(asked):
            kwargs["device"] = CPU
        pinned = kwargs.pop("pin_memory", False) if "pin_memory" in kwargs else False
        before = sim.context
        sim.context = is_cuda(asked) if asked is not None else any(map(on_cuda, tensors_in(args, kwargs)))
        if name == "new_tensor" and sim.context:
            sim.wait("copy to device")
            with torch._C.DisableTorchFunction():
                sim.context = False
                out = func(*args, **kwargs)
                sim.context = before
                tag(out)
                return out
        try:
            if func is torch.Tensor.backward:  # Python that runs within (checkpointing) shall be seen
                options = {"grad_tensors" if key == "gradient" else key: value for key, value in kwargs.items()}
                with self:
                    out = torch.autograd.backward(*args, **options)
            else:
                out = func(*args, **kwargs)
        finally:
            sim.context = before
        if pinned:
            tag(out, PINNED)
        return out
