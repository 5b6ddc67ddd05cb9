"""A system put together from a deployed detector and SR networks that are there already, without any training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.stage3_schema import Stage3Config
from loading.build_network import build_network
from loading.checkpoints import checkpoint_kind, load_front
from loading.deployed_detector import load_deployed_detector
from loading.load_sr import load_sr, shipped_file
from loading.shipped_weights import FOLDER, SHIPPED, shipped_specs
from models import SR_NETWORKS, build_sr
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.front_end import FrontEnd
from models.masker import Masker
from models.single_sr import SingleSR
from models.sr_network import SRNetwork
from models.system import ConditionalSRDetector
from models.tiling.tile_plan import auto_halo
from utils.checkpoint import CheckpointError
from utils.errors import UserError

DEFAULT_SCALE = 4
PATCH = 16  # LR pixels; any size of image may come


@dataclass(frozen=True)
class Assembled:
    """A system of ready parts.

    Args:
        system: on the CPU, in evaluation mode.
        masker_trained: false where SR_Fast and SR_Quality stand side by side and nobody has trained a masker for them:
            then only policies that need none say where SR_Quality runs.
    """

    system: ConditionalSRDetector
    masker_trained: bool


def assemble_system(
    detector: str | Path, sr: str | Path = SHIPPED, scale: float | None = None, model: str | None = None
) -> Assembled:
    """Detector behind SR networks.

    Args:
        detector: file, see `load_deployed_detector`.
        sr: see `load_ready_front`.
        scale: 2, 3 or 4; None takes that of the networks, x4 of the shipped ones.
        model: model YAML of a detector's plain state dict; None recognises it.

    Raises:
        UserError, CheckpointError: naming the file and what is wrong with it.
    """
    front, trained = load_ready_front(str(sr), scale)
    return Assembled(ConditionalSRDetector(front, load_deployed_detector(detector, model)).eval(), trained)


def load_ready_front(sr: str, scale: float | None = None) -> tuple[FrontEnd, bool]:
    """Front end with weights, and whether it has a masker that was trained.

    Args:
        sr: `shipped` for the project's own SR_Fast and SR_Quality; FAST,QUALITY for two others; else one network for
            the whole image: a weight file of stage 2 or published by others, the name of a shipped one (edsr_8x32), or
            that of a network (bicubic, or one of which weights are shipped). A checkpoint of stage 3 gives its front
            end.
        scale: of the front end; None takes that of the networks, x4 of the shipped ones.

    Raises:
        UserError, CheckpointError: no such network or file, or for another scale.
    """
    if scale is not None and not float(scale).is_integer():
        raise UserError(f"scale is {scale:g}; before a detector it must be a whole number")
    factor = None if scale is None else int(scale)
    if sr == SHIPPED:
        return side_by_side(*(load_sr(path) for path in shipped_pair(factor or DEFAULT_SCALE))), False
    fast, comma, quality = sr.partition(",")
    if comma and not Path(sr).exists():
        return side_by_side(ready_network(fast.strip(), factor), ready_network(quality.strip(), factor)), False
    if checkpoint_kind(sr) == "system":
        front = load_front(sr)
        if front.sees_hr:
            raise UserError(f"{sr}: was trained on HR images and has no SR network; name another")
        if factor not in (None, front.scale):
            raise UserError(f"{sr}: is for x{front.scale}, not x{factor}; leave the scale out")
        return front, front.patch is not None
    return SingleSR(ready_network(sr, factor)), False


def shipped_pair(scale: int) -> tuple[Path, Path]:
    """Shipped weights of the SR_Fast and SR_Quality that stage 3 takes by default.

    Raises:
        UserError: none are shipped for this scale.
    """
    default, scales = Stage3Config(), sorted({spec["args"]["scale"] for spec in shipped_specs().values()})
    if scale not in scales:
        held = ", ".join(f"x{factor}" for factor in scales)
        raise UserError(f"sr: no weights are shipped for x{scale}, only for {held}; name bicubic or a weight file")
    networks = (build_network(net.name, scale, net.args) for net in (default.sr_fast, default.sr_quality))
    fast, quality = (shipped_file(network) for network in networks)
    return fast, quality


def side_by_side(sr_fast: SRNetwork, sr_quality: SRNetwork) -> ConditionalSR:
    """Both networks, with a masker that has learned nothing: policies that do not look at it choose the patches."""
    return ConditionalSR(Masker(PATCH), sr_fast, sr_quality, Execution(halo=auto_halo(sr_quality, PATCH))).eval()


def ready_network(name: str, scale: int | None) -> SRNetwork:
    """SR network with weights, from a file, the name of a shipped file or that of a network; see `load_ready_front`."""
    if Path(name).is_file():
        return _of_file(name, scale)
    stem, factor = Path(name).stem if name.endswith(".safetensors") else name, scale or DEFAULT_SCALE
    for file in (FOLDER / f"{stem}.safetensors", FOLDER / f"{stem}_x{factor}.safetensors"):
        if file.is_file():
            return load_sr(file, scale)
    if name == "bicubic":
        return build_sr(name, factor).eval()
    if name in SR_NETWORKS:
        specs = shipped_specs().items()
        files = [file for file, spec in specs if (spec["name"], spec["args"]["scale"]) == (name, factor)]
        if files:
            return load_sr(max(files, key=lambda file: file.stat().st_size))
        raise UserError(f"sr: no weights of {name} are shipped for x{factor}; name a weight file")
    shipped = sorted({path.stem.rpartition("_x")[0] for path in shipped_specs()})
    raise CheckpointError(
        f"sr: {name!r} is no file and no name; give a weight file, `{SHIPPED}`, bicubic, or one of {', '.join(shipped)}"
    )


def _of_file(path: str, scale: int | None) -> SRNetwork:
    """Network of a weight file; one for any scale is built for the one that is wanted."""
    network = load_sr(path, scale)
    if scale is None or network.scale == scale:
        return network
    args = {key: value for key, value in network.spec["args"].items() if key != "scale"}
    other = build_sr(network.spec["name"], scale, args)
    other.load_state_dict(network.state_dict())
    return other.eval()
