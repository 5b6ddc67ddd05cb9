"""State dicts from published weight files: read without executing code, unwrapped.

What a file is, its content says and not its suffix: .pth, .pt, .ckpt and .safetensors are used for one another.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from utils.checkpoint import SAVE_ALONE, CheckpointError, refuse_hostile, refuse_other_files, refused_type

# Where training frameworks put the weights, best first: a moving average is what their authors report.
NESTS = (
    "params_ema", "params-ema", "ema", "state_dict_ema", "model_ema", "params", "state_dict", "model_state_dict",
    "network_state_dict", "sd", "model", "net", "netG", "generator", "g", "weights",
)  # fmt: skip
PREFIXES = (
    "module.", "_orig_mod.", "model.", "netG.", "net.", "network.", "generator.", "params.", "net_g_ema.",
    "generator_ema.", "net_g.",
)  # fmt: skip
# Of a training with several networks in one state dict: the one that makes images, the averaged one first.
GENERATORS = ("net_g_ema.", "generator_ema.", "net_g.", "netG.", "generator.")


@dataclass(frozen=True)
class StateDictFile:
    """Weights as a file holds them.

    Args:
        weights: tensors by bare names, floating ones as float32.
        wrapping: what was taken off, such as "in 'params_ema', prefix 'module.'"; empty if nothing.
        spec: what stands beside the weights about their network, {"name", "args"} in the layout of LIIF;
            empty elsewhere.
        prefix: what was taken off every name, such as "module.model.".
        metadata: the header of a safetensors file, empty elsewhere.
    """

    weights: dict[str, Tensor]
    wrapping: str
    spec: dict
    prefix: str
    metadata: dict[str, str]


def read_state_dict(path: str | Path) -> StateDictFile:
    """Read a weight file onto the CPU.

    Raises:
        CheckpointError: missing, damaged, with code in it, or without tensors.
    """
    path = Path(path)
    content, metadata = read_content(path)
    return StateDictFile(*_unwrap(path, content), metadata)


def read_content(path: Path) -> tuple[object, dict[str, str]]:
    """What a weight file holds, on the CPU, and the header of a safetensors file.

    Raises:
        CheckpointError: missing, damaged, or with code in it.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: does not exist; correct the path or download the weights first")
    refuse_other_files(path)
    metadata: dict[str, str] = {}
    try:
        if is_safetensors(path):
            with safe_open(path, framework="pt", device="cpu") as file:
                metadata = file.metadata() or {}
                content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        else:
            with path.open("rb") as file:  # from the path PyTorch would judge by the suffix
                content = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged ({error}); use another copy of it") from error
    except Exception as error:  # a damaged or foreign pickle can fail in any way
        kind = refused_type(error)
        script = "a TorchScript archive" if "TorchScript" in str(error) else ""
        if kind or script:
            what = script or f"pickled objects, such as a whole network ({kind})"
            raise CheckpointError(
                f"{path}: cannot be read as plain tensors (it holds {what}); nothing in it was executed: {SAVE_ALONE}"
            ) from error
        first = (str(error).strip().splitlines() or [""])[0][:160]
        raise CheckpointError(
            f"{path}: cannot be read as plain tensors ({type(error).__name__}: {first}); nothing in it was executed."
            " Use another copy, or save its state dict alone as .safetensors"
        ) from error
    refuse_hostile(path, content)
    return content, metadata


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of the header in 8 bytes, then JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8:
        return True
    torch_file = start.startswith((b"PK", b"\x80"))
    return path.suffix == ".safetensors" and not torch_file  # damaged, which its reader explains


def is_community_file(path: str | Path) -> bool:
    """Whether a file is a readable weight file that none of the stage scripts wrote."""
    path = Path(path)
    if path.is_file() and is_safetensors(path):
        return True
    try:
        refuse_other_files(path)
        if zipfile.is_zipfile(path) and not _mentions_checksum(path):
            return True  # read once, not twice: a file made to harm takes its time
        with path.open("rb") as file:
            content = torch.load(file, map_location="meta", weights_only=True)
    except Exception:  # missing, damaged or unsafe: the reader of own checkpoints says what is wrong
        return path.suffix == ".safetensors"
    return not (isinstance(content, dict) and "checksum" in content)


def _mentions_checksum(path: Path) -> bool:
    """Whether the pickle in an archive of PyTorch holds the word, as it does in files that the stage scripts wrote."""
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return any(b"checksum" in archive.read(name) for name in pickles)


def own_spec(metadata: dict[str, str]) -> tuple[str, dict] | None:
    """(name, args) where a safetensors header says how to build the network: {"name": ..., "args": JSON}."""
    try:
        args = json.loads(metadata.get("args", ""))
    except (ValueError, RecursionError):
        return None
    return (metadata["name"], args) if "name" in metadata and isinstance(args, dict) else None


def without_prefixes(tensors: dict[str, Tensor], prefixes: tuple[str, ...]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors without the prefixes that all names have, and these in their order; the counter that PyTorch's averaged
    models have beside their `module.` is left out."""
    taken = []
    others = {key: value for key, value in tensors.items() if key != "n_averaged"}
    while prefix := next((p for p in prefixes if others and all(key.startswith(p) for key in others)), ""):
        taken.append(prefix)
        tensors = others = {key.removeprefix(prefix): value for key, value in others.items()}
    return tensors, taken


def _unwrap(path: Path, content: object) -> tuple[dict[str, Tensor], str, dict, str]:
    """Tensors by bare names, what was taken off, what stood beside them about the network, and the prefix."""
    steps, spec = [], {}
    # A step count or a learning rate beside the weights may be a tensor too, so the names alone decide.
    while isinstance(content, dict):
        nest = next((key for key in NESTS if content.get(key) and isinstance(content[key], dict)), None)
        if nest is None:
            break
        steps.append(f"in {nest!r}")
        spec = {key: content[key] for key in ("name", "args") if nest == "sd" and key in content}
        content = content[nest]
    found = content if isinstance(content, dict) else {}
    weights = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not weights:
        keys = f"its keys are {', '.join(map(repr, list(found)[:8]))}" if found else "it is no dictionary"
        raise CheckpointError(f"{path}: holds no named tensors ({keys}); save the network's state dict alone")
    part = next((p for p in GENERATORS if any(key.startswith(p) for key in weights)), "")
    if part and not all(key.startswith(part) for key in weights):
        steps.append(f"part {part!r}")
        weights = {key.removeprefix(part): value for key, value in weights.items() if key.startswith(part)}
    weights, prefixes = without_prefixes(weights, PREFIXES)
    steps += [f"prefix {prefix!r}" for prefix in prefixes]
    plain = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    return plain, ", ".join(steps), spec, "".join(prefixes)
