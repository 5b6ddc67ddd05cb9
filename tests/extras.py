"""Marks for tests that need libraries of an extra requirements file, or a browser: skipped where these are missing.

from tests.extras import needs, needs_browser, needs_generative

    pytestmark = needs_generative          # a whole file
    @needs("torch_fidelity")               # one test
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec

import pytest


@dataclass(frozen=True)
class Extra:
    """One extra: requirements-NAME.txt, and the libraries of it (names to import) that its tests ask for."""

    name: str
    libraries: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"requirements-{self.name}.txt"


EXTRAS = (
    Extra("generative", ("diffusers", "peft", "timm", "torch_fidelity")),
    Extra("export", ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf")),
    Extra("mobile", ("executorch",)),
    Extra("app", ("gradio", "selenium")),
    Extra("bulk", ("ray", "pyarrow")),
    Extra("fuzz", ("atheris",)),
    Extra("integrations", ("supervision", "sahi", "nbclient", "ipykernel", "lap")),
)
BROWSER = ("chromium", "chromedriver")
BROWSER_REMEDY = "apt-get install chromium chromium-driver"


def needs(*libraries: str) -> pytest.MarkDecorator:
    """A mark that skips tests where one of the libraries (names to import) is not installed; imports none of them."""
    missing = [library for library in libraries if find_spec(library) is None]
    files = dict.fromkeys(extra.file for extra in EXTRAS if set(missing) & set(extra.libraries))
    remedy = f"pip install {' '.join(f'-r {file}' for file in files)}" if files else "pip install -r requirements.txt"
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed; {remedy}")


def needs_extra(name: str) -> pytest.MarkDecorator:
    """`needs` of all libraries of an extra."""
    return needs(*next(extra.libraries for extra in EXTRAS if extra.name == name))


needs_generative = needs_extra("generative")
needs_browser = pytest.mark.skipif(
    any(shutil.which(program) is None for program in BROWSER),
    reason=f"{' or '.join(BROWSER)} not installed; {BROWSER_REMEDY}",
)
