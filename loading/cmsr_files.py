"""Files of CMSR tables: bound to the network that they were measured on by tools/cmsr_tables.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loading.load_sr import with_defaults
from loading.published_weights import spec_text
from models.capabilities import Tables
from models.sr_network import SRNetwork
from utils.atomic_file import replace_text
from utils.checkpoint import checksum
from utils.yaml_strict import ConfigError, dump_yaml, load_yaml

REMEDY = "make tables for it with `python -m tools.cmsr_tables`"


@dataclass(frozen=True)
class TableFile:
    """What a file of tables holds.

    Args:
        tables: {target scale: {scale of a level: largest modulation strength}}, see models/capabilities.py.
        network: `network_fingerprint` of the network that they were measured on; None in files of the method's authors.
    """

    tables: Tables
    network: str | None


def network_fingerprint(network: SRNetwork) -> str:
    """SHA-256, in hex, of what a network computes: its arguments besides the scale, and its weights."""
    spec = with_defaults(network.spec)
    args = {key: value for key, value in sorted(spec["args"].items()) if key != "scale"}
    weights = {key: value.cpu() for key, value in network.state_dict().items()}
    return checksum({"name": spec["name"], "args": args, "weights": weights})


def measured_on(file: TableFile, network: SRNetwork) -> bool:
    """Whether the tables were measured on this network, as far as they tell."""
    return network.capabilities.coarse is not None and file.network in (None, network_fingerprint(network))


def use_tables(network: SRNetwork, path: str | Path) -> SRNetwork:
    """The network, its weights shared, that renders large images by the tables of a file.

    Raises:
        ConfigError: no such tables, or those of another network.
    """
    file = load_tables(path)
    if not measured_on(file, network):
        raise ConfigError(f"{path}: {owner_of(file)}, not to {spec_text(network.spec)}; {REMEDY}")
    if file.network is None:
        print(f"{path}: does not say which weights its tables belong to; taken as those of {spec_text(network.spec)}")
    return network.with_tables(file.tables)


def owner_of(file: TableFile) -> str:
    """To which network tables belong."""
    if file.network is None:
        return "belongs to a network that renders by tables"
    return f"belongs to the network with the fingerprint {file.network[:12]}"


def save_tables(path: str | Path, file: TableFile) -> None:
    """Write tables in the order of their scales; the file is replaced in one step."""
    tables = {s: dict(sorted(table.items())) for s, table in sorted(file.tables.items())}
    replace_text(path, dump_yaml({"network": file.network, "tables": tables}))


def load_tables(path: str | Path) -> TableFile:
    """Read tables, also those that the method's authors publish.

    Raises:
        ConfigError: not such a file; the message names the file and the entry.
    """
    content, network = load_yaml(path), None
    if isinstance(content, dict) and "tables" in content:
        network, content = content.get("network"), content["tables"]
        if not isinstance(network, str | None):
            raise ConfigError(f"{path}: network is {network!r}, expected a fingerprint; build the tables anew")
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path}: expected CMSR tables {{target scale: {{scale: strength}}}}; build them anew")
    for target, table in content.items():
        _check_scale(path, target)
        if not isinstance(table, dict) or not table:
            raise ConfigError(f"{path}: the table of target {target} is {table!r}, expected {{scale: strength}}")
        thresholds = []
        for scale in table:
            _check_scale(path, scale)
        for scale, strength in sorted(table.items()):
            if type(strength) not in (int, float) or not 0 <= strength <= 1:
                raise ConfigError(f"{path}: target {target}, scale {scale}: strength {strength!r} is not from 0 to 1")
            thresholds.append(strength)
        if thresholds != sorted(thresholds):
            raise ConfigError(
                f"{path}: target {target}: strengths must not fall as the scale grows, found {thresholds}"
            )
    return TableFile(content, network)


def _check_scale(path: str | Path, scale: object) -> None:
    if type(scale) not in (int, float) or not scale >= 1:
        raise ConfigError(f"{path}: scale {scale!r} is not a number of at least 1")
