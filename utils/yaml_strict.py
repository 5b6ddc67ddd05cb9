"""YAML without surprises: `1e-4` is a number, only true/false are booleans; no duplicate keys, tags or aliases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError

MAX_BYTES, DEEPEST = 1_000_000, 50
_TAG = "tag:yaml.org,2002:"
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]{1,4})?|[0-9][0-9_]*[eE][-+]?[0-9]{1,4}"
    r"|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]{1,4})?|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)
_LINE_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]")


class ConfigError(UserError):
    """A setting that cannot be used; the message names file, line or option, value and remedy."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema; YAML 1.1 reads `no`, `1:30` and `010` unexpectedly."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (PyYAML's own protocol: add_implicit_resolver fills it)

    def compose_node(self, parent, index):
        """Refuse aliases (they make small files explode), explicit tags (they can name Python code), deep nesting."""
        event = self.peek_event()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem=f"alias *{event.anchor}: write the value out", problem_mark=mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"tag {event.tag} is not allowed: write a plain value", problem_mark=mark
            )
        if len(self.marks) > DEEPEST:  # PyYAML takes seconds to reach Python's own limit
            raise yaml.MarkedYAMLError(problem="nested too deeply, this is no file of settings", problem_mark=mark)
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(_TAG + "null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "int", re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,30})$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes the texts that `_Loader`, but not YAML 1.1, would read as numbers."""

    def represent_text(self, text: str) -> yaml.Node:
        """Text with Unicode line breaks goes between double quotes; PyYAML loses them in other styles."""
        style = '"' if _LINE_BREAKS.search(text) else None
        return self.represent_scalar(_TAG + "str", text, style)


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))


def load_yaml(path: str | Path) -> Any:
    """Read a YAML file strictly; an empty file gives None.

    Raises:
        ConfigError: missing, larger than 1 MB, not UTF-8, not YAML, duplicate key, tag or alias; names file and line.
    """
    return load_yaml_lines(path)[0]


def load_yaml_lines(path: str | Path) -> tuple[Any, dict[tuple, int]]:
    """Like `load_yaml`, with the line number (from 1) of every key, addressed by the tuple of keys that leads to it."""
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ConfigError(f"{path}: {kind}; give the path of a YAML file, relative to {Path.cwd()} or absolute")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than 1 MB, this is no configuration file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}:{raw[: error.start].count(10) + 1}: not UTF-8 text; save the file as UTF-8"
        ) from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> tuple[Any, dict[tuple, int]]:
    """Parse YAML text strictly; `name` stands for the file in error messages. Returns value and line numbers."""
    lines: dict[tuple, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return (None if node is None else _plain(loader, node, (), lines, name)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{where}: {' '.join(p for p in (error.context, error.problem) if p)}") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigError(f"{name}:{line}: control character #x{error.character:04x}; remove it") from error


def dump_yaml(value: Any) -> str:
    """YAML text that this module, and any YAML 1.1 reader, reads back to an equal value; keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _plain(loader: _Loader, node: yaml.Node, path: tuple, lines: dict[tuple, int], name: str) -> Any:
    """Node tree -> plain Python values; fills `lines`."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*path, i), lines, name) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    values: dict = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{name}:{line}: a key must be a plain word, not a list or a mapping")
        key = loader.construct_object(key_node)
        place = (*path, key)
        if key in values:
            raise ConfigError(
                f"{name}:{line}: duplicate key {'.'.join(map(str, place))}, first given in line {lines[place]};"
                " remove one of them"
            )
        lines[place] = line
        values[key] = _plain(loader, value_node, place, lines, name)
    return values
