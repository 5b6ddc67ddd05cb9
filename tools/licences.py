"""Licences of all libraries that the project needs, directly or through others, as they say of themselves.

    python -m tools.licences requirements.txt requirements-generative.txt

Exit status 1 where a library states none, so that a new one is looked at. Libraries that are not installed are named.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib import metadata
from pathlib import Path

NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[([^\]]*)\])?")
NOT_STATED = "not stated"


def normalised(name: str) -> str:
    """A library's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(file: Path) -> list[str]:
    """Requirements of a requirements file, without comments and options."""
    lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("-")]


def needed(requirements: list[str]) -> tuple[dict[str, metadata.Distribution], set[str]]:
    """Installed libraries that these need, themselves included, by name; and the names of those not installed.

    A requirement with a condition (another system or Python, an extra that nobody asked for) counts where its library
    is installed.
    """
    found: dict[str, metadata.Distribution] = {}
    missing: set[str] = set()
    open_ones = [(line, True) for line in requirements]
    while open_ones:
        line, certain = open_ones.pop()
        name = normalised(NAME.match(line)[1])
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            missing |= {name} if certain else set()
            continue
        open_ones += [(more, ";" not in more) for more in found[name].requires or () if "extra ==" not in more]
    return found, missing - found.keys()


def licence(library: metadata.Distribution) -> str:
    """Licence by the expression, else the classifiers, else the first line of the free text."""
    about = library.metadata
    if about.get("License-Expression"):
        return about["License-Expression"]
    classified = [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if line.startswith("License ::")
    ]
    text = (about.get("License") or "").strip().splitlines()
    stated = [line for line in classified if line != "OSI Approved"] or text[:1]
    return ", ".join(stated)[:80] or NOT_STATED


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 1 where a library states no licence."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.licences", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, default=[Path("requirements.txt")], help="requirements files")
    found, missing = needed([line for file in parser.parse_args(argv).files for line in listed(file)])
    rows = [("library", "version", "licence")]
    rows += [(name, library.version, licence(library)) for name, library in sorted(found.items())]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, version, terms in rows:
        print(f"{name:{widths[0]}}  {version:{widths[1]}}  {terms}")
    for name in sorted(missing):
        print(f"{name}: not installed", file=sys.stderr)
    silent = [name for name, _, terms in rows if terms == NOT_STATED]
    if silent:
        print(f"no licence stated by {', '.join(silent)}: look at their files", file=sys.stderr)
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
