"""The SR weights that come with the project: weights/*.safetensors, whose headers say which network they hold."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open

from loading.state_dict_file import own_spec
from utils.checkpoint import CheckpointError
from utils.errors import UserError

SHIPPED = "shipped"  # what configurations write instead of a path
# Diffusion systems need requirements-generative.txt and invent detail: whoever wants that names them.
ONLY_BY_NAME = ("ldcsr", "ldcsr_kd", "difiisr_dwt", "one_step_diffusion")
FOLDER = Path(__file__).resolve().parents[1] / "weights"
SUMS = "SHA256SUMS"  # in the form of sha256sum


def shipped_specs() -> dict[Path, dict]:
    """File -> {"name", "args"} of its network, by name.

    Raises:
        CheckpointError: a damaged file.
    """
    specs = {}
    for path in sorted(FOLDER.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found = own_spec(file.metadata() or {})
        except SafetensorError as error:
            raise CheckpointError(f"{path}: damaged ({error}); restore it from the repository") from error
        if found is not None:
            specs[path] = {"name": found[0], "args": found[1]}
    return specs


def check_shipped(path: str | Path) -> None:
    """Raises CheckpointError where a file of the project's weights is not as it was published; others pass."""
    path, sums = Path(path).resolve(), FOLDER / SUMS
    if path.parent != FOLDER or not path.is_file() or not sums.is_file():
        return
    known = dict(line.split()[::-1] for line in sums.read_text(encoding="utf-8").splitlines() if line.strip())
    if path.name in known and hashlib.sha256(path.read_bytes()).hexdigest() != known[path.name]:
        raise CheckpointError(f"{path}: is not as it was published (SHA-256 in {SUMS}); restore it from the repository")


def strongest_shipped(scale: float | None) -> Path:
    """The largest file for a scale (None: x4), which `inference.py --sr-only` takes where no weights are named.

    Diffusion systems are left out, see ONLY_BY_NAME.

    Raises:
        ValueError: nothing is shipped for this scale.
    """
    wanted = 4 if scale is None else scale
    specs = {path: spec for path, spec in shipped_specs().items() if spec["name"] not in ONLY_BY_NAME}
    files = [path for path, spec in specs.items() if spec["args"].get("scale") == wanted]
    if not files:
        held = sorted({spec["args"].get("scale") for spec in specs.values()})
        raise UserError(
            f"no weights given, and none are shipped for x{wanted:g}, only for {', '.join(f'x{s}' for s in held)}; "
            "name a weight file with --weights"
        )
    return max(files, key=lambda path: path.stat().st_size)
