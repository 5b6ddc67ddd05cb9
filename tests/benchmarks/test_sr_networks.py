"""The table of SR networks: what stands in the document is what the code gives, and what the papers say."""

from __future__ import annotations

import pytest

from benchmarks import sr_networks
from benchmarks.sr_networks import DOCUMENT, PUBLISHED, SKIPPED, row
from models import SR_NETWORKS, build_sr
from models.capabilities import WHOLE_SCALES
from utils.flops_counter import count_macs_at, count_parameters

# Large ones take seconds; one scale of each is counted.
LARGE = ("rcan", "rdn", "swinir", "swinir_light")
QUICK = [(name, scale) for name in SR_NETWORKS for scale in WHOLE_SCALES
         if name not in SKIPPED and not name.startswith("lm_") and (name not in LARGE or scale == 4)]  # fmt: skip


@pytest.mark.parametrize(("name", "scale"), QUICK)
def test_every_line_of_the_document_is_what_the_code_gives(name: str, scale: int):
    assert row(name, scale) in DOCUMENT.read_text().splitlines()


def test_the_rest_of_the_document_is_up_to_date(monkeypatch: pytest.MonkeyPatch):
    text = DOCUMENT.read_text()
    lines = {tuple(line.split()[1:4:2]): line for line in text.splitlines() if line.startswith("| ")}
    monkeypatch.setattr(sr_networks, "row", lambda name, scale: lines[name, f"x{scale}"])
    assert sr_networks.document() == text


@pytest.mark.parametrize(("name", "scale"), PUBLISHED)
def test_parameters_are_the_published_ones(name: str, scale: int):
    thousands, _ = PUBLISHED[name, scale]
    if thousands is not None and name != "srresnet":  # that one: tests/models/test_sr_networks.py
        precision = 10 if thousands > 10_000 else 1  # millions are published with two decimals
        mean_shift = 0.024  # thousand parameters, constants that the authors count
        found = count_parameters(build_sr(name, scale)) / 1000
        assert found == pytest.approx(thousands, abs=precision / 2 + mean_shift)


@pytest.mark.parametrize(
    ("name", "scale"), [key for key, value in PUBLISHED.items() if value[1] and (key[0] not in LARGE or key[1] == 4)]
)
def test_macs_are_the_published_ones(name: str, scale: int):
    gmac = count_macs_at(build_sr(name, scale), -(-720 // scale), -(-1280 // scale)) / 1e9
    # SwinIR's are published rounded, and counted by another tool.
    assert gmac == pytest.approx(PUBLISHED[name, scale][1], rel=0.025 if name == "swinir_light" else 0.003)


def test_rfdn_has_the_macs_of_the_challenge_that_it_won():
    assert count_macs_at(build_sr("rfdn", 4), 256, 256) / 1e9 == pytest.approx(27.10, rel=0.005)


def test_the_command_writes_the_page(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr("models.SR_NETWORKS", {name: SR_NETWORKS[name] for name in ("espcn", "bicubic")})
    sr_networks.main(["--out", str(tmp_path / "new" / "page.md")])
    text = (tmp_path / "new" / "page.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 2 * len(WHOLE_SCALES) and set(rows) <= set(DOCUMENT.read_text().splitlines())
    assert capsys.readouterr().out == text + "\n"
