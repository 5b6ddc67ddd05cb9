"""Known weaknesses of the locked versions, by pip-audit; how many libraries could be looked up is said.

    python -m tools.audit requirements.lock

Exit status 1 where a weakness is known, or no library could be looked up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

COMMAND = ["-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?", default=Path("requirements.lock"), help="with hashes")
    file = parser.parse_args(argv).file
    if importlib.util.find_spec("pip_audit") is None:
        print(f"pip-audit is not installed: {sys.executable} -m pip install pip-audit", file=sys.stderr)
        return 1
    done = subprocess.run([sys.executable, *COMMAND, "--requirement", str(file)], capture_output=True, text=True)
    try:
        libraries = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"audit: the advisories could not be reached ({reason[:200]})", file=sys.stderr)
        return 1
    return verdict(libraries)


def verdict(libraries: list[dict]) -> int:
    """Print what pip-audit found of each library, and return the exit status."""
    known = [library for library in libraries if "skip_reason" not in library]
    weak = [(library, fault) for library in known for fault in library["vulns"]]
    for library, fault in weak:
        mended = ", ".join(fault["fix_versions"]) or "no version yet"
        print(f"{library['name']} {library['version']}: {fault['id']}, mended in {mended}")
    print(f"audit: {len(weak)} known weaknesses; {len(known)} of {len(libraries)} libraries could be looked up")
    return 1 if weak or not known else 0


if __name__ == "__main__":
    sys.exit(main())
