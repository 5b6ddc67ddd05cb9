"""CMSR tables in YAML files."""

from __future__ import annotations

import re

import pytest
import torch

from data.images import ImageError
from loading.cmsr_files import TableFile, load_tables, network_fingerprint, save_tables, use_tables
from models import build_sr
from models.lmf.cmsr import build_table, rendered_share
from tests.drawn import draw_photographs
from tools.cmsr_tables import lr_images, main
from utils.checkpoint import CheckpointError, save_network
from utils.yaml_strict import ConfigError

TABLES = {6: {1: 0.12, 1.5: 0.13, 4: 0.215, 6: 1}, 12.5: {2: 0.1, 12.5: 1.0}}
SMALL = {"n_blocks": 1, "n_feats": 8}


def small_network(scale=4, seed=0):
    torch.manual_seed(seed)
    network = build_sr("lm_lte", scale, SMALL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def saved(path, network):
    save_network(path, "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    return str(path)


def test_tables_come_back_in_order(tmp_path):
    path = tmp_path / "tables.yaml"
    save_tables(path, TableFile({12.5: TABLES[12.5], 6: dict(reversed(TABLES[6].items()))}, "ab12"))
    file = load_tables(path)
    assert file == TableFile(TABLES, "ab12")
    assert list(file.tables) == [6, 12.5] and list(file.tables[6]) == [1, 1.5, 4, 6]


def test_published_tables_can_be_read(tmp_path):
    path = tmp_path / "edsr-b_lm-lte.yaml"
    path.write_text("  6:\n    1: 0.12\n    2: 0.15\n    4: 0.215\n    6: 1\n")
    assert load_tables(path) == TableFile({6: {1: 0.12, 2: 0.15, 4: 0.215, 6: 1}}, None)


def test_the_fingerprint_is_of_the_weights_and_of_what_is_computed_not_of_the_scale():
    own = network_fingerprint(small_network())
    assert own == network_fingerprint(small_network(scale=2.5)) and own != network_fingerprint(small_network(seed=1))
    written_out = small_network()
    written_out.spec["args"] |= {"encoder": "edsr_baseline"}
    assert network_fingerprint(written_out) == own
    with torch.no_grad():
        written_out.decoder.render_mlp.rgb.bias[0] += 1e-6
    assert network_fingerprint(written_out) != own
    compat = [build_sr("lm_ciaosr", 4, SMALL | {"weight_compat": flag}) for flag in (False, True)]
    compat[1].load_state_dict(compat[0].state_dict())
    assert network_fingerprint(compat[0]) != network_fingerprint(compat[1])


def test_tables_of_another_network_are_refused(tmp_path, capsys):
    path, network = tmp_path / "t.yaml", small_network()
    save_tables(path, TableFile(TABLES, network_fingerprint(network)))
    assert use_tables(network, path).cmsr == TABLES and network.cmsr is None
    other = small_network(seed=1)
    with pytest.raises(
        ConfigError, match=r"t\.yaml: belongs to the network with the fingerprint [0-9a-f]{12}, not to lm"
    ):
        use_tables(other, path)
    with pytest.raises(ConfigError, match=r"not to espcn\(scale=2\); make tables for it with"):
        use_tables(build_sr("espcn", 2), path)
    save_tables(path, TableFile(TABLES, None))
    assert use_tables(other, path).cmsr == TABLES and "does not say which weights" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="belongs to a network that renders by tables, not to espcn"):
        use_tables(build_sr("espcn", 2), path)


def test_the_command_measures_tables_of_a_network(tmp_path, capsys):
    network = small_network()
    weights = saved(tmp_path / "lm.pth", network)
    folder = str(draw_photographs(tmp_path / "Photos", images=3, size=(64, 75)))
    command = ["--weights", weights, "--hr", folder, "--out", str(tmp_path / "t.yaml"), "--device=cpu", "--limit=2"]
    assert main([*command, "--scales", "8", "5.5", "--tolerance=1e-4"]) == 0
    file = load_tables(tmp_path / "t.yaml")
    assert file.network == network_fingerprint(network) and list(file.tables) == [5.5, 8]
    images = list(lr_images([folder], 5.5, 2, torch.device("cpu"), ""))
    assert [tuple(image.shape) for image in images] == [(1, 3, 11, 13)] * 2
    assert file.tables[5.5] == build_table(network, images, 5.5, tolerance=1e-4)
    shares = [rendered_share(network, image, (60, 72), file.tables) for image in images]
    shown = capsys.readouterr().out
    assert f"x5.5 beyond; renders {sum(shares) / 2:.1%} of the pixels of 2 images" in shown
    use_tables(network, tmp_path / "t.yaml")
    with pytest.raises(SystemExit):
        main(command)
    assert "exists: choose another name or add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scales", "31"], r"--scales \[31.0\]: give numbers above 1, up to 30"),
        (["--scales", "nan"], "give numbers above 1"),
        (["--tolerance", "0"], "--tolerance must be positive"),
        (["--limit", "-1"], "--limit not negative"),
    ],
)
def test_wrong_options(tmp_path, options, message, capsys):
    weights = saved(tmp_path / "lm.pth", small_network())
    with pytest.raises(SystemExit):
        main(["--weights", weights, "--hr", "b", "--out", str(tmp_path / "t.yaml"), *options])
    assert re.search(message, capsys.readouterr().err)


def test_tables_are_for_networks_of_any_scale(tmp_path):
    out = ["--hr", str(tmp_path), "--out", str(tmp_path / "t.yaml"), "--device=cpu"]
    with pytest.raises(ConfigError, match=r"e\.pth: holds espcn\(scale=2\), which does not render by tables"):
        main(["--weights", saved(tmp_path / "e.pth", build_sr("espcn", 2)), *out])
    with pytest.raises(CheckpointError, match=r"gone\.pth: does not exist"):
        main(["--weights", "gone.pth", *out])
    with pytest.raises(ImageError, match="no images"):
        main(["--weights", saved(tmp_path / "lm.pth", small_network()), *out])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected CMSR tables"),
        ("- 1\n", "expected CMSR tables"),
        ("6: 0.1\n", "the table of target 6 is 0.1"),
        ("big: {1: 0.1}\n", "scale 'big' is not a number"),
        ("6: {0.5: 0.1}\n", "scale 0.5 is not a number of at least 1"),
        ("6: {1: high}\n", "target 6, scale 1: strength 'high'"),
        ("network: 3\ntables: {6: {1: 0.1}}\n", "network is 3, expected a fingerprint"),
        ("network: ab\ntables: {}\n", "expected CMSR tables"),
        ("6: {1: 1.5}\n", "strength 1.5 is not from 0 to 1"),
        ("6: {1: 0.3, 2: 0.2}\n", r"must not fall as the scale grows, found \[0.3, 0.2\]"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "tables.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_tables(path)
    assert "tables.yaml" in str(error.value)
