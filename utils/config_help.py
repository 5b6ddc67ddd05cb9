"""The text of --help: one entry per key with type, meaning and default, from the docstrings of configs/schema.py."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter


def print_help(config_class: type, description: str, values: dict[str, Any], bounds: dict[str, str]) -> None:
    """Help written by jsonargparse from the dataclasses' docstrings, with bounds; defaults are those of the file."""
    parser = ArgumentParser(
        description=description,
        usage="%(prog)s [--config FILE] [--section.key VALUE ...]",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        epilog="Lists are written [a, b]; an entry with a comma, a colon or brackets in it goes between quotes, as in "
        """'["images, old", new]'; the outer quotes are for the shell.""",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file to start from")
    parser.add_class_arguments(config_class, None)
    parser.set_defaults(values)
    for action in parser._actions:
        if action.help and bounds.get(action.dest):
            action.help = f"{action.help.rstrip('.')} ({bounds[action.dest]})"
    parser.print_help()


class _HelpFormatter(DefaultHelpFormatter):
    """`--key TYPE  meaning (default: x)`; section switches of jsonargparse, which this program refuses, stay hidden."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=44, width=shutil.get_terminal_size((140, 24)).columns)

    def add_argument(self, action) -> None:
        if type(action).__name__ != "_ActionConfigLoad":
            super().add_argument(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text.strip()

    def _format_action_invocation(self, action) -> str:
        return super()._format_action_invocation(action).partition(f", --{action.dest}+")[0]

    def _get_default_metavar_for_optional(self, action) -> str:
        kind = (self._get_type_str(action) or "").replace(" ", "")
        kind = re.sub(r"^Optional\[(.*)\]$", r"Union[\1,null]", kind)
        if kind.startswith("Union["):  # Union[int,Literal['auto']] -> int|auto
            kind = re.sub(r"Literal\[([^]]*)\]", r"\1", kind[6:-1]).replace("'", "").replace(",", "|")
        return "mapping" if kind.startswith("dict") else kind

    def _get_help_string(self, action) -> str:
        if action.dest in ("help", "config"):
            return action.help
        default = (
            action.default
            if isinstance(action.default, str) and action.default
            else json.dumps(action.default, default=vars)
        )
        return f"{action.help.rstrip('.')} (default: {default})"
