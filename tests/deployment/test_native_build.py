"""`python -m deployment.native.build`: the library, or one line that says why there is none."""

from __future__ import annotations

from pathlib import Path

from deployment.native import build as native_build


def test_the_command_names_the_library(monkeypatch, capsys, tmp_path: Path):
    library = tmp_path / "block_sparse-0123.so"
    monkeypatch.setattr(native_build, "build", lambda: library)
    assert native_build.main([]) == 0
    assert capsys.readouterr().out == f"native kernel: {library}\n"


def test_where_there_is_none_it_says_why(monkeypatch, capsys):
    monkeypatch.setattr(native_build, "cpu_flags", lambda: frozenset({"sse2"}))
    assert native_build.main([]) == 1
    said = capsys.readouterr()
    assert said.err == "no native kernel (the CPU has no AVX-512); the project goes on with PyTorch alone\n"
    assert not said.out
