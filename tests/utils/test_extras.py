"""Libraries of the extra requirements files."""

from __future__ import annotations

import math

import pytest

from utils.errors import UserError
from utils.extras import require


def test_a_library_that_is_there_is_returned():
    assert require("math", "generative") is math


def test_a_missing_one_says_in_one_line_what_to_install():
    with pytest.raises(UserError) as caught:
        require("no_such_library", "generative", "network ldcsr")
    assert "network ldcsr needs no_such_library" in str(caught.value)
    assert str(caught.value).endswith("pip install -r requirements-generative.txt") and "\n" not in str(caught.value)
