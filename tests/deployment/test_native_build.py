"""`python -m deployment.native.build`: the library, or one line that says why there is none."""

from __future__ import annotations

from pathlib import Path

from deployment.native import build as native_build


def test_the_command_names_the_libraries(monkeypatch, capsys):
    monkeypatch.setattr(native_build, "build", lambda library: Path(f"{library.source.stem}-0123.so"))
    assert native_build.main([]) == 0
    assert capsys.readouterr().out == "native kernel: block_sparse-0123.so\nnative int8 kernel: int8-0123.so\n"


def test_where_there_is_none_it_says_why(monkeypatch, capsys):
    monkeypatch.setattr(native_build, "cpu_flags", lambda: frozenset({"sse2"}))
    monkeypatch.setattr(native_build, "COMPILER", "no-such-compiler")
    monkeypatch.setattr(native_build.Path, "exists", lambda path: False)
    assert native_build.main([]) == 1
    said = capsys.readouterr()
    first, second = said.err.splitlines()
    assert first == "no native kernel (the CPU has no AVX-512); the project goes on with PyTorch alone"
    assert second.startswith("no native int8 kernel (no-such-compiler: ")
    assert not said.out
