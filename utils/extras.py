"""Libraries that only some parts need: they are imported where they are used, and one line says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from utils.errors import UserError


class MissingExtra(UserError):
    """A library of an extra requirements file is not installed."""


def require(module: str, extra: str, what: str = "this") -> ModuleType:
    """The module, imported now.

    Args:
        module: its name, such as "diffusers".
        extra: name of the requirements file, requirements-EXTRA.txt.
        what: what needs it, for the message.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(f"{what} needs {module} ({error}): pip install -r requirements-{extra}.txt") from error
