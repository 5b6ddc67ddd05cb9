"""tools/audit.py: what pip-audit knows is counted; where it knows nothing, one line says so."""

from __future__ import annotations

import subprocess

import pytest

from tools import audit

GOOD = {"name": "a", "version": "1", "vulns": []}
WEAK = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("libraries", "status", "said"),
    [
        ([GOOD, UNKNOWN], 0, "audit: 0 known weaknesses; 1 of 2 libraries could be looked up"),
        ([GOOD, WEAK], 1, "b 2: CVE-1, mended in 3"),
        ([UNKNOWN], 1, "audit: 0 known weaknesses; 0 of 1 libraries could be looked up"),
    ],
)
def test_verdict(libraries, status, said, capsys):
    assert audit.verdict(libraries) == status
    assert said in capsys.readouterr().out


def test_no_network_is_one_line(monkeypatch, capsys):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nConnectionError: refused\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: failed)
    assert audit.main([]) == 1
    assert capsys.readouterr().err == "audit: the advisories could not be reached (ConnectionError: refused)\n"


def test_pip_audit_missing_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert audit.main([]) == 1 and capsys.readouterr().err.startswith("pip-audit is not installed: ")
