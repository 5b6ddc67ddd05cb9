"""requirements.lock: exact versions with hashes, for every supported Python on Linux, that requirements.txt allows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"}


def requirements(file: str) -> list[Requirement]:
    text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (re.sub(r"--hash=\S+|(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def pins(python: str) -> dict[str, Version]:
    """Locked version of each library under a Python; each stands there once."""
    found: dict[str, Version] = {}
    environment = LINUX | {"python_version": python, "python_full_version": f"{python}.9", "extra": ""}
    for requirement in requirements("requirements.lock"):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            assert pin.operator == "==" and requirement.name not in found
            found[requirement.name] = Version(pin.version)
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_the_locked_versions_are_ones_that_the_loose_file_allows(python: str):
    locked, loose = pins(python), requirements("requirements.txt")
    assert len(locked) > len(loose) > 15
    for requirement in loose:
        assert requirement.name in locked, f"{requirement.name} is not locked: make lock"
        assert requirement.specifier.contains(locked[requirement.name]), f"{requirement}: make lock"


def test_every_version_has_hashes_and_no_index_is_named():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.findall(r"^[a-z0-9][^\n]*(?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+$", text, re.M)
    assert len(entries) == len(requirements("requirements.lock"))
    assert "://" not in text and "index" not in text
