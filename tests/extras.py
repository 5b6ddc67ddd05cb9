"""Marks for tests that need libraries of requirements-generative.txt: they are skipped where these are missing.

from tests.extras import needs, needs_generative

    pytestmark = needs_generative          # a whole file
    @needs("torch_fidelity")               # one test
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest

GENERATIVE = ("diffusers", "peft", "timm", "torch_fidelity")
REMEDY = "pip install -r requirements-generative.txt"


def needs(*libraries: str) -> pytest.MarkDecorator:
    """A mark that skips tests where one of the libraries (names to import) is not installed; imports none of them."""
    missing = [library for library in libraries if find_spec(library) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed; {REMEDY}")


needs_generative = needs(*GENERATIVE)
