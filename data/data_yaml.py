"""The text of an Ultralytics data-set YAML: its keys, class names and the shape of its keypoints."""

from __future__ import annotations

from pathlib import Path

import yaml

from utils.errors import UserError
from utils.yaml_strict import DEEPEST

MAX_BYTES = 4_000_000
MOST_CLASSES = 100_000
EMPTY = ("", "~", "null", [], {})


class DataSetError(UserError):
    """A data set that cannot be used: which YAML or split, what is wrong, and what to do."""


class _Loader(yaml.BaseLoader):
    """Every value stays text: a class called `no` or `007` stays what it is. A key that stands twice is refused, and so
    is an alias of a list, with which a small file grows without end, and deep nesting."""

    def compose_node(self, parent, index):
        is_alias, line = self.check_event(yaml.AliasEvent), self.peek_event().start_mark.line + 1
        if len(self.marks) > DEEPEST:  # PyYAML takes seconds to reach Python's own limit
            raise yaml.YAMLError(f"line {line}: nested too deeply")
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.YAMLError(f"line {line}: an alias of a list or mapping; write it out")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise yaml.YAMLError(f"line {line}: the key `{key.value}` stands in line {seen[key.value]} already")
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = line
        return super().construct_mapping(node, deep)


def read_data_yaml(file: Path) -> dict:
    """Keys and values of a data-set YAML as text, lists and mappings; those without a value are left out.

    Raises:
        DataSetError: missing, too large, no YAML, a key that stands twice, or no keys at all.
    """
    if not file.is_file():
        raise DataSetError(f"{file}: no such data-set YAML; check data.yaml in the configuration")
    if file.stat().st_size > MAX_BYTES:
        size = f"{file.stat().st_size:,} bytes, more than the limit of {MAX_BYTES:,}"
        raise DataSetError(f"{file}: {size}; this is no data-set YAML, check data.yaml in the configuration")
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise DataSetError(f"{file}: not a YAML file ({error}); correct it") from None
    except OSError as error:
        raise DataSetError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    if not isinstance(content, dict):
        raise DataSetError(f"{file}: holds no keys; expected path, train, val, names")
    content = {key: value for key, value in content.items() if value not in EMPTY}
    if "validation" in content:
        content.setdefault("val", content["validation"])
    return content


def class_names(file: Path, content: dict) -> tuple[str, ...]:
    """Class names in the order of their ids, from a list, a mapping, or `nc` alone."""
    names, count = content.get("names"), content.get("nc")
    if count is not None and not (str(count).isdecimal() and int(count) > 0):
        raise DataSetError(f"{file}: `nc: {count}` is not a number of classes; correct it")
    if count is not None and len(count) > len(str(MOST_CLASSES)):
        raise DataSetError(f"{file}: `nc` is more than {MOST_CLASSES:,}; correct it")
    if names is None and count is None:
        raise DataSetError(f"{file}: no class names; add `names:` (a list, or 0: first, 1: second, ...)")
    if names is None:
        return tuple(f"class_{i}" for i in range(int(count)))
    if isinstance(names, dict):
        if len({int(key) for key in names if key.isdecimal()}) < len(names) and all(map(str.isdecimal, names)):
            raise DataSetError(f"{file}: `names` has a class id twice: {', '.join(names)}; give each id once")
        if not all(key.isdecimal() for key in names) or sorted(map(int, names)) != list(range(len(names))):
            raise DataSetError(f"{file}: the ids of `names` must be 0..{len(names) - 1}, got {', '.join(names)}")
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataSetError(f"{file}: `names` must be a list of names or a mapping from id to name")
    if count is not None and int(count) != len(names):
        raise DataSetError(f"{file}: nc is {count}, but `names` has {len(names)} entries; make them agree")
    return tuple(names)


def keypoint_columns(file: Path, content: dict) -> int:
    """Numbers that pose labels have behind the box, by `kpt_shape: [points, 2 or 3]`; 0 without it."""
    shape = content.get("kpt_shape")
    if shape is None:
        return 0
    whole = isinstance(shape, list) and len(shape) == 2 and all(str(side).isdecimal() for side in shape)
    if not whole or int(shape[0]) < 1 or int(shape[1]) not in (2, 3):
        raise DataSetError(f"{file}: `kpt_shape: {shape}` is not [number of points, 2 or 3]; correct it")
    return int(shape[0]) * int(shape[1])
