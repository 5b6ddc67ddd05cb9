"""Freed memory stays mapped: the second of two equal allocations brings no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

from training import host_memory
from training.host_memory import keep_freed_memory

PROGRAM = """
import resource, sys
import torch
from training.host_memory import keep_freed_memory
kept = keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(40 * 2**20, dtype=torch.uint8)  # above the 32 MB up to which glibc ever learns to keep blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_no_page_faults_for_memory_that_was_there_before():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    if kept == "False":
        pytest.skip("no glibc here")
    assert int(faults) < 1000, "a page fault per 4 KB would make 100,000"


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(host_memory.sys, "platform", "darwin")
    assert keep_freed_memory() is False


def test_another_c_library(monkeypatch):
    monkeypatch.setattr(host_memory.sys, "platform", "linux")
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False
