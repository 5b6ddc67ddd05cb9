"""One value of a configuration against its type and its bound: what fits is converted, what does not is explained.

The same rules hold for YAML files and the command line: a text is no number, and 'yes' is no boolean.
"""

from __future__ import annotations

import difflib
import json
import math
import shlex
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from utils.yaml_strict import ConfigError, parse_yaml


def from_text(text: str, kind: Any) -> Any:
    """Value of a command-line word: text where the key takes text, else read as YAML."""
    options = {_bare(option) for option in (get_args(kind) if get_origin(kind) in (Union, UnionType) else [kind])}
    words = {option for option in options if get_origin(option) is None} or {None}
    is_list = words != options and text.startswith("[")  # text, or a list of texts
    if (words <= {str, NoneType} and not is_list) or get_origin(kind) is Literal:
        return None if text == "null" and NoneType in options else text
    try:
        return parse_yaml(text, "")[0]
    except ConfigError:  # no YAML: the type check names the text as it stands
        return text


def checked(value: Any, kind: Any, name: str, where: str = "") -> Any:
    """The value as its key wants it.

    Args:
        value: from a YAML file or `from_text`.
        kind: type of the key, with its bound.
        name: dotted name of the key, or the option.
        where: file and line, empty for the command line.

    Raises:
        ConfigError: it does not fit; names place, key, value and what would fit.
    """
    start = f"{where}: " if where else ""
    if isinstance(kind, type) and is_dataclass(kind):
        return _checked_section(value, kind, name, where)
    if get_origin(kind) is dict and is_dataclass(get_args(kind)[1]) and isinstance(value, dict):
        return {key: _checked_section(item, get_args(kind)[1], f"{name}.{key}", where) for key, item in value.items()}
    try:
        converted = _convert(value, kind)
    except TypeError:
        near = nearest(str(value), get_args(kind)) if get_origin(kind) is Literal else []
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{start}{name} must be {_describe(kind)}, found {show(value)}{hint}") from None
    except _OutOfRange as bound:
        raise ConfigError(f"{start}{name} must be {bound}, found {show(value)}") from None
    torn = _torn_path(converted) if isinstance(converted, list) else None
    if torn is not None:
        quoted = f"[{json.dumps(torn, ensure_ascii=False)}]"
        raise ConfigError(
            f"{start}{name}: commas separate the entries of a list, and {torn} is one path with a comma in it; put it "
            f"between quotes: {quoted if where else shlex.quote(quoted)}"  # a shell would take the inner ones away
        )
    return converted


def _checked_section(value: Any, kind: Any, name: str, where: str) -> Any:
    """A dataclass from the mapping of its keys, where sections are the values of a mapping."""
    hints, start = get_type_hints(kind, include_extras=True), f"{where}: " if where else ""
    if not isinstance(value, dict):
        raise ConfigError(f"{start}{name} must be a mapping of the keys {', '.join(hints)}, found {show(value)}")
    for key in value:
        if key not in hints:
            near = nearest(str(key), hints)
            advice = f"did you mean {near[0]}?" if near else f"valid keys here: {', '.join(hints)}"
            raise ConfigError(f"{start}{name}: unknown key {show(key)}; {advice}")
    return kind(**{key: checked(item, hints[key], f"{name}.{key}", where) for key, item in value.items()})


def nearest(word: str, names: Iterable[str]) -> list[str]:
    """The name that was probably meant, in a list; empty where only another thing is near, as save_sr to save_crop."""

    def alike(one: str, other: str, least: float) -> bool:
        match = difflib.SequenceMatcher(None, one, other)
        one_letter = sum(block.size for block in match.get_matching_blocks()) >= max(len(one), len(other)) - 1
        return match.ratio() >= least or (one_letter and (len(one) != len(other) or one[:1] == other[:1]))

    def meant(name: str) -> bool:
        parts = word.lower().split("_"), name.lower().split("_")
        by_part = len(parts[0]) != len(parts[1]) or all(alike(*pair, 0.6) for pair in zip(*parts, strict=True))
        return by_part and (alike(word.lower(), name.lower(), 0.8) or sorted(word.lower()) == sorted(name.lower()))

    return difflib.get_close_matches(word.lower(), sorted(filter(meant, names)), 1, 0)


class _OutOfRange(Exception):
    """A number of the right type beyond its bound; the text is the bound."""


def _convert(value: Any, kind: Any) -> Any:
    """`value` as type `kind`; only a whole number may stand for a float.

    Raises:
        TypeError: it does not fit.
        _OutOfRange: it fits, but its bound is broken.
    """
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number, limits = _convert(value, args[0]), args[1]
        if refusal := limits.refusal(number):
            raise _OutOfRange(refusal)
        return number
    if origin in (Union, UnionType):
        exact = [arg for arg in args if type(value) is _bare(arg)]  # 1 stays whole where int | float is allowed
        for arg in exact or args:
            try:
                return _convert(value, arg)
            except TypeError:
                continue
    elif origin is Literal and isinstance(value, str) and value in args:
        return value
    elif origin is list and isinstance(value, list):
        return [_convert(item, args[0]) for item in value]
    elif origin is dict and isinstance(value, dict):
        return {_convert(key, args[0]): _convert(item, args[1]) for key, item in value.items()}
    elif kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    elif kind is not float and type(value) is kind:
        return value
    raise TypeError


def _bare(kind: Any) -> Any:
    """`kind` without its bound."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def bounds_in_words(kind: Any) -> str:
    """The bound of a key, or of the entries of a list, in words; empty where there is none."""
    if get_origin(kind) is Annotated:
        return str(get_args(kind)[1])
    return ", ".join(dict.fromkeys(filter(None, map(bounds_in_words, get_args(kind)))))


def _torn_path(entries: list) -> str | None:
    """An existing path with commas in its name that the list has taken for several entries; None without one."""
    texts = [entry for entry in entries if isinstance(entry, str)]
    for first in range(len(texts) - 1):
        for end in range(first + 2, len(texts) + 1):
            for comma in (",", ", "):
                path = comma.join(texts[first:end])
                if not Path(texts[first]).exists() and Path(path).exists():
                    return path
    return None


def _describe(kind: Any) -> str:
    kind = _bare(kind)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_describe(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is list:
        return f"a list such as [a, b], each {_describe(args[0])}"
    if is_dataclass(kind):
        return f"a mapping of the keys {', '.join(field.name for field in fields(kind))}"
    if origin is dict:
        return f"a mapping such as {{name: value}}, each value {_describe(args[1])}"
    return {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", NoneType: "null"}[kind]


def show(value: Any) -> str:
    """The value as it stands in messages, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
