"""A pytest plugin for CI: skipped tests of an extra fail the run where the extra is installed, or should have been.

    python -m pytest -p tests.skipped_extras

An extra counts as installed when `make test` has left its stamp, .venv/.NAME; a browser when its programs are found.
What no index had leaves no stamp, and its tests may be skipped.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.extras import BROWSER, BROWSER_REMEDY, EXTRAS


def unexpected(reasons: set[str], stamps: Path) -> list[str]:
    """The reasons for which nothing should have been skipped.

    Args:
        reasons: why tests were skipped.
        stamps: folder of the stamps that `make test` leaves.
    """
    present = {extra.file for extra in EXTRAS if (stamps / f".{extra.name}").is_file()}
    if all(map(shutil.which, BROWSER)):
        present.add(BROWSER_REMEDY)
    return sorted(reason for reason in reasons if "could not import" in reason or any(it in reason for it in present))


class SkippedExtras:
    """Collects why tests were skipped; at the end, the wrong ones are shown and the run fails."""

    def __init__(self, stamps: Path):
        self.stamps = stamps
        self.reasons: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self.reasons.add(report.longrepr[2].removeprefix("Skipped: "))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self.reasons.add(report.longrepr[2].removeprefix("Skipped: "))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if unexpected(self.reasons, self.stamps) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for reason in unexpected(self.reasons, self.stamps):
            terminalreporter.write_line(f"skipped although it is installed: {reason}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # with several processes, the first one hears of every test
        config.pluginmanager.register(SkippedExtras(config.rootpath / ".venv"), "skipped extras")
