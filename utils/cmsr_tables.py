"""CMSR tables as YAML files: {target scale: {scale of a level: largest modulation strength}}; see models.lmf.cmsr."""

from __future__ import annotations

from pathlib import Path

from models.lmf.cmsr import Tables
from utils.atomic_file import replace_text
from utils.yaml_strict import ConfigError, dump_yaml, load_yaml


def save_tables(path: str | Path, tables: Tables) -> None:
    """Write tables in the order of their scales; the file is replaced in one step."""
    replace_text(path, dump_yaml({s: dict(sorted(table.items())) for s, table in sorted(tables.items())}))


def load_tables(path: str | Path) -> Tables:
    """Read tables, also those that the authors of LMF publish.

    Raises:
        ConfigError: not such a file; the message names the file and the entry.
    """
    content = load_yaml(path)
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
    return content


def _check_scale(path: str | Path, scale: object) -> None:
    if type(scale) not in (int, float) or not scale >= 1:
        raise ConfigError(f"{path}: scale {scale!r} is not a number of at least 1")
