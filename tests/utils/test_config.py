"""Every mistake in a file or on the command line ends in one line that names place, value and remedy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from configs.schema import RunConfig, Stage2Config
from configs.stage3_schema import Stage3Config
from tests.utils.small_config import Inner, Outer, from_text, parse, refused
from utils.config import ConfigError, changed_keys, config_to_dict, load_config, save_config

# --------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    "text, expected",
    [
        ("inner: {rate: 1e-4}", Inner(rate=1e-4)),
        ("inner: {rate: 2}", Inner(rate=2.0)),
        ("inner: {rate: -.5E+2}", Inner(rate=-50.0)),
        ("inner: {size: [480, 640]}", Inner(size=[480, 640])),
        ("inner: {size: 1_000}", Inner(size=1000)),
        ("inner: {on: true}", Inner(on=True)),
        ("inner: {on: False}", Inner(on=False)),
        ("inner: {folder: no}", Inner(folder="no")),
        ("inner: {folder: null}", Inner()),
        ("inner: {folder: 1:30}", Inner(folder="1:30")),
        ("inner: {folder: 2024-01-01}", Inner(folder="2024-01-01")),
        ("inner: {folder: 'null'}", Inner(folder="null")),
        ("inner: {names: [off, 'on', ~x]}", Inner(names=["off", "on", "~x"])),
        ("inner: {args: {a: 1, b: 1.5, c: true, d: yes, e: '1'}}",
         Inner(args={"a": 1, "b": 1.5, "c": True, "d": "yes", "e": "1"})),
        ("inner: {args: {}}", Inner(args={})),
        ("inner:", Inner()),
        ("inner:\n  # rate: 3\ncount: 3", Inner()),
        ("", Inner()),
        ("# nothing\n", Inner()),
        ("\ufeffinner: {folder: Grüße}", Inner(folder="Grüße")),
    ],
)  # fmt: skip
def test_values_of_a_file(tmp_path: Path, text: str, expected: Inner):
    config = from_text(tmp_path, text)
    assert config == Outer(inner=expected)
    assert type(config.inner.rate) is float
    assert [type(v) for v in config.inner.args.values()] == [type(v) for v in expected.args.values()]


@pytest.mark.parametrize(
    "text, message",
    [
        ("inner:\n  rat: 3", "c.yaml:2: unknown key 'inner.rat'; did you mean inner.rate?"),
        ("coutn: 3", "c.yaml:1: unknown key 'coutn'; did you mean count?"),
        ("\n\ninnr:\n  rate: 3", "c.yaml:3: unknown key 'innr'; did you mean inner?"),
        ("rate: 3", "c.yaml:1: unknown key 'rate'; did you mean inner.rate?"),
        ("inner.rate: 3", "c.yaml:1: unknown key 'inner.rate'; write rate indented below inner"),
        ("inner: {zzzz: 3}", "unknown key 'inner.zzzz'; valid keys here: rate, size,"),
        ("3: 4", "c.yaml:1: unknown key '3'"),
        ("count: 1\ncount: 2", "c.yaml:2: duplicate key count, first given in line 1; remove one of them"),
        ("inner:\n  rate: 1\n  rate: 1", "c.yaml:3: duplicate key inner.rate, first given in line 2"),
        ("inner: {args: {a: 1, a: 2}}", "c.yaml:1: duplicate key inner.args.a"),
        ("count: three", "c.yaml:1: count must be a whole number, found 'three'"),
        ("count: 1.0", "count must be a whole number, found 1.0"),
        ("count: true", "count must be a whole number, found True"),
        ("count: '3'", "count must be a whole number, found '3'"),
        ("count: 010", "count must be a whole number, found '010'"),
        ("count: 1:30", "count must be a whole number, found '1:30'"),
        ("count: null", "count must be a whole number, found None"),
        ("count: [3]", "count must be a whole number, found [3]"),
        ("count: {a: 3}", "count must be a whole number, found {'a': 3}"),
        ("count: " + "9" * 5000, "count must be a whole number, found '999"),
        ("save_all: yes", "save_all must be true or false, found 'yes'"),
        ("save_all: off", "save_all must be true or false, found 'off'"),
        ("save_all: 1", "save_all must be true or false, found 1"),
        ("inner: {rate: fast}", "inner.rate must be a finite number, found 'fast'"),
        ("inner: {rate: .nan}", "inner.rate must be a finite number, found nan"),
        ("inner: {rate: -.inf}", "inner.rate must be a finite number, found -inf"),
        ("inner: {rate: 1e999}", "inner.rate must be a finite number, found inf"),
        ("inner: {kind: fanci}", "inner.kind must be one of plain, fancy, found 'fanci'; did you mean fancy?"),
        ("inner: {size: [1, b]}", "inner.size must be a whole number or a list such as [a, b], each a whole number"),
        ("inner: {folder: 3}", "inner.folder must be text or null, found 3"),
        ("inner: {names: a}", "inner.names must be a list such as [a, b], each text, found 'a'"),
        ("inner: {args: {a: [1]}}", "inner.args must be a mapping such as {name: value}"),
        ("inner: {args: {1: 1}}", "inner.args must be a mapping"),
        ("inner: 3", "c.yaml:1: inner is a section: its keys stand indented below, found 3"),
        ("- 1\n- 2", "c.yaml:1: expected a mapping of keys such as inner, found [1, 2]"),
        ("just text", "expected a mapping"),
        ("count: !!python/object/apply:os.system ['true']", "c.yaml:1: tag tag:yaml.org,2002:python/object/apply:os"),
        ("count: !!int '3'", "c.yaml:1: tag tag:yaml.org,2002:int is not allowed: write a plain value"),
        ("count: &a 3\ninner: {size: *a}", "c.yaml:2: alias *a: write the value out"),
        ("inner: &a {args: {x: 1}}\ncount: {<<: *a}", "c.yaml:2: alias *a"),
        ("? [1, 2]\n: 3", "c.yaml:1: a key must be a plain word"),
        ("count: 3\n\tinner: 3", "c.yaml:2: "),
        ("count: [3", "c.yaml:1: while parsing a flow sequence"),
        ("count: 3\n---\ncount: 4", "c.yaml:2: "),
        ("count: 3 \x07", "c.yaml:1: control character #x0007"),
        ("[" * 3000, "nested too deeply"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(tmp_path: Path, capsys, text: str, message: str):
    with pytest.raises(ConfigError) as caught:
        from_text(tmp_path, text)
    assert message in str(caught.value)
    assert str(tmp_path / "c.yaml") in str(caught.value)
    assert len(str(caught.value)) < 500
    assert message in refused(capsys, "--config", str(tmp_path / "c.yaml"))


def test_files_that_are_none(tmp_path: Path, capsys):
    assert "nowhere.yaml: does not exist; give the path" in refused(capsys, "--config", str(tmp_path / "nowhere.yaml"))
    assert "is a folder" in refused(capsys, "--config", str(tmp_path))
    (tmp_path / "big.yaml").write_bytes(b"#" * 1_000_001)
    assert "big.yaml: larger than 1 MB" in refused(capsys, "--config", str(tmp_path / "big.yaml"))
    (tmp_path / "latin.yaml").write_bytes("count: 3\n# Größe".encode("latin-1"))
    assert "latin.yaml:2: not UTF-8 text" in refused(capsys, "--config", str(tmp_path / "latin.yaml"))


# --------------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--inner.rate", "1e-4"], Outer(Inner(rate=1e-4))),
        (["--inner.rate=3", "--inner.rate=4"], Outer(Inner(rate=4.0))),
        (["--inner.rate", "-3"], Outer(Inner(rate=-3.0))),
        (["--inner.size", "[480,640]"], Outer(Inner(size=[480, 640]))),
        (["--inner.names", '["a b", c]'], Outer(Inner(names=["a b", "c"]))),
        (["--inner.folder", "12"], Outer(Inner(folder="12"))),
        (["--inner.folder", "no"], Outer(Inner(folder="no"))),
        (["--inner.folder="], Outer(Inner(folder=""))),
        (["--inner.folder=--odd"], Outer(Inner(folder="--odd"))),
        (["--inner.folder", "a: b"], Outer(Inner(folder="a: b"))),
        (["--inner.folder", "null"], Outer()),
        (["--limit", "null"], Outer()),
        (["--limit", "0.5"], Outer(limit=0.5)),
        (["--save_all"], Outer(save_all=True)),
        (["--save-all", "--count", "4"], Outer(save_all=True, count=4)),
        (["--save-all=False"], Outer()),
        (["--inner.on", "true"], Outer(Inner(on=True))),
        (["--inner.args.width", "8"], Outer(Inner(args={"depth": 2, "width": 8}))),
        (["--inner.args", "{a: yes}", "--inner.args.b", "1e-3"], Outer(Inner(args={"a": "yes", "b": 1e-3}))),
        (["--inner.args={}"], Outer(Inner(args={}))),
    ],
)
def test_options(argv: list[str], expected: Outer):
    assert parse(*argv) == expected


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--innr.rate", "3"], "unknown option --innr.rate; did you mean --inner.rate?"),
        (["--inner.rat=3"], "unknown option --inner.rat; did you mean --inner.rate?"),
        (["--inner.r=3"], "unknown option --inner.r; "),
        (["--rate", "3"], "unknown option --rate; did you mean --inner.rate?"),
        (["--confg", "3"], "unknown option --confg; did you mean --config?"),
        (["--quite.another.thing", "3"], "unknown option --quite.another.thing; --help lists all keys"),
        (["--inner", "{rate: 3}"], "--inner is a section: set its keys, such as --inner.rate"),
        (["--inner.size+", "3"], "unknown option --inner.size+; did you mean --inner.size?"),
        (["--count"], "--count: a value is missing"),
        (["--count", "--save_all"], "--count: a value is missing"),
        (["--count", "three"], "--count must be a whole number, found 'three'"),
        (["--count", "[3"], "--count must be a whole number, found '[3'"),
        (["--count", "3", "4"], "unexpected argument '4'; options look like --section.key value"),
        (["--save_all", "yes"], "--save_all must be true or false, found 'yes'"),
        (["--inner.kind", "Plain"], "--inner.kind must be one of plain, fancy, found 'Plain'; did you mean plain?"),
        (["--inner.args.a", "[1]"], "--inner.args.a must be true or false or a whole number"),
        (["c.yaml"], "unexpected argument 'c.yaml'; --config c.yaml"),
        (["-c", "c.yaml"], "unexpected argument '-c'"),
        (["--config"], "--config: a value is missing"),
        (["--config", "a", "--config", "b"], "--config is given twice"),
        (["--inner.rate", "nan"], "--inner.rate must be a finite number, found 'nan'"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(capsys, argv: list[str], message: str):
    assert message in refused(capsys, *argv)


def test_options_win_over_the_file_wherever_they_stand(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("count: 5\ninner: {rate: 2, args: {a: 1}}")
    expected = Outer(Inner(rate=7.0, args={"a": 1, "b": 2}), count=5)
    options = ["--inner.rate", "7", "--inner.args.b", "2"]
    assert parse("--config", str(tmp_path / "c.yaml"), *options) == expected
    assert parse(*options, f"--config={tmp_path / 'c.yaml'}") == expected


def test_defaults_are_not_shared_between_calls():
    first, second = parse(), parse()
    first.inner.args["depth"] = 9
    first.inner.names.append("x")
    assert second == parse() == Outer()


# ----------------------------------------------------------------------------------------------------- save and compare


def test_save_and_load_are_inverse(tmp_path: Path):
    odd = [
        "no",
        "1e-4",
        "010",
        "1:30",
        "null",
        "~",
        "",
        " a ",
        "a: b",
        "# c",
        "Grüße",
        "line\nbreak",
        "tab\t",
        "=",
        "<<",
    ]
    args = {"yes": "on", "1": 1e-7, "x": -0.0, "big": 10**15, "t": True, "s": "1_000", "e": "1e5"}
    config = Outer(Inner(rate=1e-6, size=[1, 2], names=odd, args=args), limit=0.1 + 0.2)
    save_config(config, tmp_path / "deep" / "c.yaml")
    loaded = load_config(Outer, tmp_path / "deep" / "c.yaml")
    assert loaded == config
    assert config_to_dict(loaded) == config_to_dict(config)


def test_config_to_dict_is_plain_and_a_copy():
    config = Stage2Config()
    tree = config_to_dict(config)
    assert json.loads(json.dumps(tree)) == tree
    tree["sr_quality"]["args"]["n_blocks"] = 99
    assert config == Stage2Config()


def test_changed_keys():
    old = Stage3Config()
    assert changed_keys(old, Stage3Config()) == []
    free = replace(old.run, out="x", resume=True, workers=9, device="cpu", threads=3, log_every=1, checkpoint_every=1)
    assert changed_keys(old, replace(old, run=free)) == []
    sr = replace(old.sr_quality, args={"n_blocks": 1})
    new = replace(old, run=RunConfig(seed=1, precision="bf16"), sr_quality=sr, mode="frozen_detector")
    assert sorted(changed_keys(old, new)) == ["mode", "run.precision", "run.seed", "sr_quality.args"]
