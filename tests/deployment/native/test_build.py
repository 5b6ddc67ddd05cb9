"""The library belongs to one source and one CPU; without compiler or AVX-512 the reason is said."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import deployment.native.build as native_build
from deployment.native.build import NativeError


@pytest.fixture
def avx512(monkeypatch):
    monkeypatch.setattr(native_build, "cpu_flags", lambda: native_build.NEEDED)


def test_a_library_of_another_source_or_cpu_is_not_loaded(tmp_path, avx512, monkeypatch):
    with pytest.raises(NativeError, match=r"not built: python -m deployment\.native\.build"):
        native_build.find_library(folder=tmp_path)
    path = native_build.library_path(folder=tmp_path)
    path.touch()
    assert native_build.find_library(folder=tmp_path) == path
    with monkeypatch.context() as other_cpu:
        other_cpu.setattr(native_build, "cpu_flags", lambda: native_build.NEEDED | {"avx10"})
        with pytest.raises(NativeError, match="another source or on another CPU"):
            native_build.find_library(folder=tmp_path)
    floats = native_build.FLOATS
    for number, original in enumerate((floats.source, *floats.headers)):
        changed = tmp_path / original.name
        changed.write_text(original.read_text() + "\n")
        headers = tuple(changed if header == original else header for header in floats.headers)
        other = replace(floats, headers=headers) if number else replace(floats, source=changed)
        with pytest.raises(NativeError, match="another source or on another CPU"):
            native_build.find_library(other, tmp_path)
    assert native_build.find_library(folder=tmp_path) == path


def test_without_avx512_nothing_is_built_or_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(native_build, "cpu_flags", lambda: native_build.NEEDED - {"avx512bw"})
    for function in (native_build.build, native_build.find_library):
        with pytest.raises(NativeError, match="no AVX-512"):
            function(folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_int8_needs_no_avx512_and_knows_all_its_files(monkeypatch, tmp_path):
    monkeypatch.setattr(native_build, "cpu_flags", lambda: frozenset({"sse2"}))
    with pytest.raises(NativeError, match="the native int8 kernel was not built"):
        native_build.find_library(native_build.INT8, tmp_path)
    for library in (native_build.FLOATS, native_build.INT8):
        included, left = set(), [library.source]
        while left:
            found = re.findall(r'#include "(.+)"', left.pop().read_text())
            left += [native_build.FOLDER / name for name in found if name not in included]
            included |= set(found)
        assert included == {header.name for header in library.headers}


def test_cpu_flags_are_read_from_the_system(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512f fma\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert native_build.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx512f", "fma"}
    assert native_build.cpu_flags(tmp_path / "missing") == frozenset()


def test_a_missing_or_failing_compiler_is_a_reason(tmp_path, avx512, monkeypatch):
    monkeypatch.setattr(native_build, "COMPILER", "no-such-compiler")
    with pytest.raises(NativeError, match="no-such-compiler"):
        native_build.build(folder=tmp_path)
    monkeypatch.setattr(native_build, "COMPILER", "false")
    with pytest.raises(NativeError, match="false: failed"):
        native_build.build(folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_building_replaces_stale_libraries(tmp_path, avx512, monkeypatch):
    stale = tmp_path / f"{native_build.FLOATS.source.stem}-0123.so"
    stale.touch()

    def compiler(command, **_):
        native_build.Path(command[command.index("-o") + 1]).touch()
        return native_build.subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(native_build.subprocess, "run", compiler)
    path = native_build.build(folder=tmp_path)
    assert [entry for entry in tmp_path.iterdir()] == [path]
    assert not stale.exists()
