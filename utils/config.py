"""YAML file and command line -> one frozen dataclass, with every mistake named; free of torch, so that --help is fast.

Both sources are read by the same strict rules: jsonargparse, which writes the help, would take the text 'yes' for true
and the text '1' for a number.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from utils.atomic_file import replace_text
from utils.config_values import bounds_in_words, checked, from_text, nearest, show
from utils.yaml_strict import ConfigError, dump_yaml, load_yaml, load_yaml_lines

__all__ = ["ConfigError", "changed_keys", "config_to_dict", "load_config", "load_yaml", "parse_config", "save_config"]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

# What may change between a run and its continuation: none of these changes a result.
FREE_ON_RESUME = frozenset(
    [f"run.{key}" for key in ("out", "resume", "workers", "device", "threads", "log_every", "checkpoint_every")]
    + ["data.cache", "data.cache_folder"]
)


def parse_config(config_class: type[Config], description: str, argv: list[str] | None = None) -> Config:
    """Read `--config FILE` and then `--section.key value` overrides, wherever they stand.

    `--key` alone sets a boolean, `--section.args.name value` one entry of a mapping; `-` may stand for `_`, and
    `--resume` and `--out` for `--run.resume` and `--run.out`.

    Args:
        config_class: dataclass of configs/schema.py.
        description: first lines of the help text.
        argv: arguments without the program name; None takes the command line.

    Raises:
        SystemExit: status 2 after one line on stderr that names file and line or option, value and remedy;
            status 0 after --help.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if any(field.name == "run" for field in fields(config_class)):  # the options that everybody types
        argv = ["--run." + token[2:] if token.split("=")[0] in ("--resume", "--out") else token for token in argv]
    wants_help = "-h" in argv or "--help" in argv
    try:
        file, options = _split(config_class, [token for token in argv if token not in ("-h", "--help")])
        values = {} if file is None else _read_file(config_class, file)
        _override(config_class, values, options)
    except ConfigError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    if wants_help:
        from utils.config_help import print_help  # loads jsonargparse

        leaves, _ = _names(config_class)
        print_help(config_class, description, values, {name: bounds_in_words(kind) for name, kind in leaves.items()})
        sys.exit(0)
    return _assemble(config_class(), values)


def load_config(config_class: type[Config], path: str | Path) -> Config:
    """Read a YAML file into the dataclass; absent keys keep their defaults.

    Raises:
        ConfigError: naming file, line, key, value and remedy.
    """
    return _assemble(config_class(), _read_file(config_class, str(path)))


def config_to_dict(config: Any) -> dict[str, Any]:
    """The configuration as nested plain dicts, lists and scalars; a copy."""
    return asdict(config)


def save_config(config: Any, path: str | Path) -> None:
    """Write every key as YAML that `load_config` reads back to an equal object; the file appears in one step."""
    replace_text(path, dump_yaml(config_to_dict(config)))


def changed_keys(old: Any, new: Any) -> list[str]:
    """Dotted names of the keys in which two configurations of one class differ, without those free on resume."""
    leaves, _ = _names(type(new))
    return [name for name in leaves if name not in FREE_ON_RESUME and _get(old, name) != _get(new, name)]


def _read_file(config_class: type, file: str) -> dict[str, Any]:
    """YAML file -> {dotted name: checked value}."""
    tree, lines = load_yaml_lines(file)
    leaves, sections = _names(config_class)
    values: dict[str, Any] = {}

    def walk(node: Any, path: tuple) -> None:
        for key, value in node.items():
            place = (*path, key)
            name, where = ".".join(map(str, place)), f"{file}:{lines[place]}"
            if "." in str(key):
                section, _, rest = str(key).rpartition(".")
                raise ConfigError(f"{where}: unknown key {show(key)}; write {rest} indented below {section}")
            if name in leaves:
                values[name] = checked(value, leaves[name], name, where)
            elif name not in sections:
                given = {".".join(map(str, (*path, k))) for k in node}
                raise ConfigError(f"{where}: unknown key {show(name)}; {_advice(name, leaves, sections, given, value)}")
            elif isinstance(value, dict):
                walk(value, (*path, key))
            elif value is not None:  # a section whose lines are all commented out is empty
                raise ConfigError(f"{where}: {name} is a section: its keys stand indented below, found {show(value)}")

    if tree is not None and not isinstance(tree, dict):
        raise ConfigError(
            f"{file}:1: expected a mapping of keys such as {next(iter(leaves)).partition('.')[0]}, found {show(tree)}"
        )
    walk(tree or {}, ())
    return values


def _split(config_class: type, argv: list[str]) -> tuple[str | None, list[tuple[str, str]]]:
    """Arguments -> (path after --config, [(dotted name, text)])."""
    leaves, _ = _names(config_class)
    file, options, rest = None, [], list(argv)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--") or token == "--":
            hint = f"--config {token}" if token.endswith((".yaml", ".yml")) else "options look like --section.key value"
            raise ConfigError(f"unexpected argument {show(token)}; {hint}")
        option, equals, text = token[2:].partition("=")
        name = option if option in leaves else option.replace("-", "_")
        if not equals:
            if rest and not rest[0].startswith("--"):
                text = rest.pop(0)
            elif leaves.get(name) is bool:
                text = "true"
            else:
                _refuse_option(config_class, name, f"--{option}: a value is missing")
        if name != "config":
            options.append((name, text))
        elif file is not None:
            raise ConfigError("--config is given twice; give one file, and single keys with --section.key value")
        else:
            file = text
    return file, options


def _assemble(config: Any, values: dict[str, Any], prefix: str = "") -> Any:
    """Copy of `config` with the values of the given dotted names."""
    parts = {}
    for field in fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        parts[field.name] = _assemble(value, values, f"{name}.") if is_dataclass(value) else values.get(name, value)
    return type(config)(**parts)


def _override(config_class: type, values: dict[str, Any], options: list[tuple[str, str]]) -> None:
    """Put the options of the command line over the values of the file."""
    leaves, _ = _names(config_class)
    for name, text in options:
        section, _, item = name.rpartition(".")
        if name in leaves:
            values[name] = checked(from_text(text, leaves[name]), leaves[name], f"--{name}")
        elif get_origin(leaves.get(section)) is dict:
            kind = get_args(leaves[section])[1]
            before = values.get(section, _get(config_class(), section))
            values[section] = {**before, item: checked(from_text(text, kind), kind, f"--{name}")}
        else:
            _refuse_option(config_class, name, f"unknown option --{name}")


def _refuse_option(config_class: type, name: str, problem: str) -> NoReturn:
    leaves, sections = _names(config_class)
    if name in sections:
        first = next(leaf for leaf in leaves if leaf.startswith(name + "."))
        raise ConfigError(f"--{name} is a section: set its keys, such as --{first}")
    if name in leaves or name == "config":
        raise ConfigError(problem)
    raise ConfigError(f"unknown option --{name}; {_advice(name, {**leaves, 'config': str}, sections, set(), '', '--')}")


def _names(config_class: Any) -> tuple[dict[str, Any], set[str]]:
    """({dotted name of every key: its type}, dotted names of the sections)."""
    return _found_names(config_class)


@cache
def _found_names(config_class: Any) -> tuple[dict[str, Any], set[str]]:
    leaves: dict[str, Any] = {}
    sections: set[str] = set()
    hints = get_type_hints(config_class, include_extras=True)
    for field in fields(config_class):
        kind = hints[field.name]
        if is_dataclass(kind):
            below, deeper = _names(kind)
            sections |= {field.name} | {f"{field.name}.{name}" for name in deeper}
            leaves |= {f"{field.name}.{name}": type_ for name, type_ in below.items()}
        else:
            leaves[field.name] = kind
    return leaves, sections


def _get(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _advice(
    name: str, leaves: dict[str, Any], sections: set[str], given: set[str], value: Any = None, prefix: str = ""
) -> str:
    """The nearest valid name: among the neighbours that are not given yet, else anywhere, else the list of keys."""
    section, _, key = name.rpartition(".")
    mappings = sections | {n for n, kind in leaves.items() if get_origin(kind) is dict}
    known = mappings if isinstance(value, dict) else leaves.keys() | (sections if value is None else set())
    beside = {n.rpartition(".")[2]: n for n in known if n.rpartition(".")[0] == section and n not in given}
    if near := nearest(key, beside):
        return f"did you mean {prefix}{beside[near[0]]}?"
    if section and section not in sections:  # the section is misspelt: compare whole names
        same = [n for n in known if n.rpartition(".")[2] == key] or known
        anywhere = difflib.get_close_matches(name.lower(), sorted(same), n=1, cutoff=0.6)
    else:  # the section is forgotten or another one
        near = nearest(key, {n.rpartition(".")[2] for n in known})
        anywhere = sorted(n for n in known if n.rpartition(".")[2] in near)[:3]
    if anywhere:
        return f"did you mean {' or '.join(prefix + n for n in anywhere)}?"
    valid = [n.rpartition(".")[2] for n in [*leaves, *sorted(sections)] if n.rpartition(".")[0] == section]
    return f"valid keys here: {', '.join(valid)}" if valid and not prefix else "--help lists all keys"
