"""`evaluate.py sr` from end to end: rows, files, pairs of folders, tiles, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from configs.sr_schema import EvaluateSRConfig
from data.sr_pairs import benchmark_pairs
from evaluate import main
from evaluation.sr_benchmarks import Benchmark, list_benchmarks
from evaluation.sr_candidates import Candidate, as_list, load_candidates
from evaluation.sr_evaluation import SREvaluation, gmacs
from evaluation.sr_report import comparison_picture, crop_place, short_names
from loading.cmsr_files import TableFile, network_fingerprint, save_tables
from models import build_sr
from models.arbitrary_scale import BicubicToSize
from models.capabilities import Capabilities
from models.lmf.cmsr import rendered_share
from prediction.sr_inference import load_sr_for
from tests.drawn import AnySize, draw_photographs, draw_sr_benchmark
from tests.loading import published
from utils.checkpoint import CheckpointError, save_network
from utils.config import ConfigError
from utils.convert import to_image, to_tensor
from utils.flops_counter import count_macs_at, count_parameters
from utils.metrics import PSNR_CEILING, psnr_rgb, psnr_y, ssim_rgb, ssim_y

KEYS = {"weights", "arch", "dataset", "scale", "border", "psnr_y", "ssim_y", "psnr_rgb", "params", "gmacs", "ms"}
CPU = torch.device("cpu")


def save(path: Path, name: str, scale: int, args: dict | None = None) -> torch.nn.Module:
    network = build_sr(name, scale, args or {})
    save_network(path, "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    return network.eval()


def compare(out: Path, *options: str) -> dict:
    assert main(["sr", f"--out={out}", "--device=cpu", "--timing_runs=1", *options]) == 0
    return json.loads((out / "results.json").read_text())


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return draw_photographs(tmp_path / "Photos", size=(50, 46))


def test_rows_are_what_the_metrics_say(tmp_path: Path, photographs: Path):
    network = save(tmp_path / "a.pth", "espcn", 2, {"n_feats": 8})
    results = compare(tmp_path / "out", "--weights", str(tmp_path / "a.pth"), "--hr", str(photographs), "--scale", "2")
    (row,) = results["rows"]
    assert set(row) >= KEYS
    assert (row["weights"], row["arch"], row["dataset"]) == (str(tmp_path / "a.pth"), "espcn", "Photos")
    assert row["scale"] == 2 and isinstance(row["scale"], int) and row["border"] == 2
    with torch.no_grad():
        pairs = [(to_image(network(to_tensor(lr, CPU))), hr) for _, lr, hr in benchmark_pairs(photographs, 2)]
    for key, metric in (("psnr_y", psnr_y), ("ssim_y", ssim_y), ("psnr_rgb", psnr_rgb), ("ssim_rgb", ssim_rgb)):
        assert row[key] == pytest.approx(np.mean([metric(sr, hr, 2) for sr, hr in pairs]), abs=1e-9), key
    assert row["params"] == count_parameters(network) and row["lpips"] is None
    assert row["gmacs"] == pytest.approx(count_macs_at(network, 360, 640) / 1e9)
    assert row["ms"] > 0 and list(row["psnr_y_per_image"]) == ["0", "1", "2"]


def test_a_uniform_image_leaves_every_mean_finite(tmp_path: Path, photographs: Path):
    cv2.imwrite(str(photographs / "plain.png"), np.full((50, 46, 3), 77, np.uint8))
    results = compare(tmp_path / "out", "--weights=bicubic", f"--hr={photographs}", "--scale=2", "--pictures=1")
    (row,) = results["rows"]
    values = row["psnr_y_per_image"]
    assert values["plain"] == PSNR_CEILING and max(values[name] for name in "012") < 60
    assert row["psnr_y"] == pytest.approx(np.mean(list(values.values())))
    assert 50 < row["psnr_rgb"] < PSNR_CEILING and 0.5 < row["ssim_y"] < 1
    lines = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert float(lines[0]["psnr_y"]) == row["psnr_y"]


def test_every_file_is_written(tmp_path: Path, photographs: Path):
    save(tmp_path / "a.pth", "espcn", 4, {"n_feats": 8})
    weights = f"[bicubic, {tmp_path / 'a.pth'}]"
    compare(tmp_path / "out", f"--weights={weights}", f"--hr={photographs}", "--pictures=2")
    lines = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert [line["arch"] for line in lines] == ["bicubic", "espcn"] and float(lines[0]["psnr_y"]) > 15
    table = (tmp_path / "out" / "table.md").read_text()
    assert "PSNR Y" in table and "a.pth" in table and "Photos" in table
    assert len(list((tmp_path / "out" / "comparison").glob("Photos_x4_*.png"))) == 2
    assert (tmp_path / "out" / "config.yaml").exists()
    with pytest.raises(ConfigError, match=r"out exists and is not empty; name a new folder"):
        compare(tmp_path / "out", f"--weights={weights}", f"--hr={photographs}")


def test_yaml_gives_the_same_as_options(tmp_path: Path, photographs: Path):
    (tmp_path / "c.yaml").write_text(f"weights: [bicubic]\nhr: {photographs}\nscale: [2, 3.5]\npictures: 0\n")
    by_file = compare(tmp_path / "a", "--config", str(tmp_path / "c.yaml"))
    by_words = compare(
        tmp_path / "b",
        "--weights=bicubic",
        f"--hr={photographs}",
        "--scale=[2, 3.5]",
        "--pictures=0",
        "--timing_runs=0",
    )
    for one, other in zip(by_file["rows"], by_words["rows"], strict=True):
        assert {key: one[key] for key in KEYS - {"ms"}} == {key: other[key] for key in KEYS - {"ms"}}
    assert [row["scale"] for row in by_file["rows"]] == [2, 3.5] and by_file["rows"][1]["border"] == 4
    assert by_words["rows"][0]["ms"] is None
    assert not (tmp_path / "b" / "comparison").exists()


def test_tiles_and_self_ensemble(tmp_path: Path, photographs: Path):
    save(tmp_path / "a.pth", "edsr", 2, {"n_blocks": 1, "n_feats": 4})
    options = [f"--weights={tmp_path / 'a.pth'}", f"--hr={photographs}", "--scale=2", "--pictures=0"]
    whole = compare(tmp_path / "whole", *options)["rows"][0]
    tiled = compare(tmp_path / "tiled", *options, "--tile=8")["rows"][0]
    cut = compare(tmp_path / "cut", *options, "--tile=8", "--tile_halo=0")["rows"][0]
    assert tiled["psnr_y"] == pytest.approx(whole["psnr_y"], abs=1e-3) and tiled["tile"] == 8
    assert abs(cut["psnr_y"] - whole["psnr_y"]) > 1e-3
    both = compare(tmp_path / "both", *options, "--self_ensemble", "--border=5")["rows"][0]
    assert both["self_ensemble"] and both["border"] == 5 and both["psnr_y"] != whole["psnr_y"]


def test_lr_folders(tmp_path: Path, photographs: Path):
    save(tmp_path / "a.pth", "espcn", 2, {"n_feats": 8})
    (tmp_path / "lr").mkdir()
    for name, lr, _ in benchmark_pairs(photographs, 2):
        Image.fromarray(255 - lr).save(tmp_path / "lr" / f"{name}x2.png")
    options = [f"--weights={tmp_path / 'a.pth'}", f"--hr={photographs}", "--scale=2", "--pictures=0"]
    made = compare(tmp_path / "made", *options)["rows"][0]
    given = compare(tmp_path / "given", *options, f"--lr={tmp_path / 'lr'}")["rows"][0]
    assert (made["lr"], given["lr"]) == ("bicubic", "folder")
    assert given["psnr_y"] < made["psnr_y"] - 3, "the negative LR images were not used"


def test_lr_images_inside_are_used_where_there_are_some(tmp_path: Path, photographs: Path):
    folder = tmp_path / "Set"
    folder.mkdir()
    photographs.rename(folder / "HR")
    (folder / "LR_bicubic" / "X2").mkdir(parents=True)
    for name, lr, _ in benchmark_pairs(folder / "HR", 2):
        Image.fromarray(lr).save(folder / "LR_bicubic" / "X2" / f"{name}x2.png")
    found = list_benchmarks(EvaluateSRConfig(hr=str(folder), scale=[2.0, 3.0, 2.5], limit=2))
    assert [(b.dataset, b.scale, b.lr_protocol, len(b.files)) for b in found] == [
        ("Set", 2.0, "folder", 2), ("Set", 3.0, "bicubic", 2), ("Set", 2.5, "bicubic", 2)
    ]  # fmt: skip
    assert list_benchmarks(EvaluateSRConfig(hr=str(folder / "HR"), scale=2.0))[0].dataset == "Set"


def test_networks_of_any_scale_and_of_one(photographs: Path, monkeypatch):
    monkeypatch.setattr(
        "prediction.sr_inference.load_sr",
        lambda path, *scale: AnySize() if path == "any" else build_sr("espcn", 2).eval(),
    )
    config = EvaluateSRConfig(weights=["any", "fixed"], hr=str(photographs), scale=[2.0, 2.7], timing_runs=0)
    candidates = load_candidates(config, CPU)
    assert {scale: [c.weights for c in found] for scale, found in candidates.items()} == {
        2.0: ["any", "fixed"],
        2.7: ["any"],
    }
    evaluation = SREvaluation(candidates, config, CPU)
    rows = [row for benchmark in list_benchmarks(config) for row in evaluation.rows(benchmark)]
    assert [(row["weights"], row["scale"]) for row in rows] == [("any", 2), ("fixed", 2), ("any", 2.7)]
    assert all(math.isfinite(row["psnr_y"]) and row["gmacs"] > 0 for row in rows)


def test_arbitrary_scale_networks_from_files(tmp_path: Path, photographs: Path):
    network = save(tmp_path / "lm.pth", "lm_lte", 4, {"n_blocks": 1, "n_feats": 8})
    save_file(
        network.state_dict(), tmp_path / "lm.safetensors", {"name": "lm_lte", "args": json.dumps(network.spec["args"])}
    )
    options = [f"--weights={tmp_path / 'lm.pth'}", f"--hr={photographs}", "--scale=[2, 2.6]", "--pictures=1"]
    rows = compare(tmp_path / "out", *options, "--timing_runs=0")["rows"]
    assert [(row["scale"], row["arch"]) for row in rows] == [(2, "lm_lte"), (2.6, "lm_lte")]
    assert rows[0]["gmacs"] > rows[1]["gmacs"] > 0
    lr = torch.rand(1, 3, 9, 8)
    again = load_sr_for(tmp_path / "lm.safetensors", 2.6)
    assert torch.equal(again(lr, (23, 21)), network(lr, (23, 21)))


@pytest.mark.parametrize("name", ["lm_liif", "lm_ciaosr"])
def test_arbitrary_scale_networks_in_tiles_at_extreme_scales(tmp_path: Path, photographs: Path, name: str):
    """Fractional scales need no tiles with whole borders here; LR of 50x46 is 50x46, 33x30 and 1x1 pixels."""
    save(tmp_path / "lm.pth", name, 4, {"n_blocks": 1, "n_feats": 8})
    weights, scales, found = str(tmp_path / "lm.pth"), [1.0, 1.5, 30.0], []
    for tile in (0, 16):
        config = EvaluateSRConfig(weights=weights, hr=str(photographs), scale=scales, border=4, tile=tile, limit=1)
        evaluation = SREvaluation(load_candidates(config, CPU), config, CPU)
        scores = [evaluation.quality(b, evaluation.candidates[b.scale])[weights] for b in list_benchmarks(config)]
        found.append([score.means()["psnr_y"] for score in scores])
    assert len(found[0]) == 3 and np.isfinite(found).all()
    assert found[1] == pytest.approx(found[0], abs=0.02)


def table_file(path: Path, network: torch.nn.Module, tables: dict) -> Path:
    save_tables(path, TableFile(tables, network_fingerprint(network)))
    return path


def test_cmsr_has_a_row_of_its_own_beyond_x4(tmp_path: Path, photographs: Path):
    network = save(tmp_path / "lm.pth", "lm_lte", 4, {"n_blocks": 1, "n_feats": 8})
    pairs = benchmark_pairs(photographs, 6)[:2]
    with torch.no_grad():
        strength = network.encode(to_tensor(pairs[0][1], CPU), torch.tensor([[0.5, 0.5]])).strength().median().item()
    tables = {6: {1: strength, 6: 1}}
    options = [f"--weights={tmp_path / 'lm.pth'}", f"--hr={photographs}", "--scale=[4, 6]", "--limit=2"]
    options += [f"--cmsr={table_file(tmp_path / 't.yaml', network, tables)}", "--pictures=1", "--timing_runs=0"]
    rows = compare(tmp_path / "out", *options, "--border=4")["rows"]
    assert [(row["scale"], row["cmsr"] is not None) for row in rows] == [(4, False), (6, False), (6, True)]
    full, multiscale = rows[1:]
    assert multiscale["weights"] == full["weights"] and multiscale["cmsr"] == str(tmp_path / "t.yaml")
    shares = [rendered_share(network, to_tensor(lr, CPU), hr.shape[:2], tables) for _, lr, hr in pairs]
    assert full["rendered_share"] is None and multiscale["rendered_share"] == pytest.approx(np.mean(shares))
    assert 0 < multiscale["rendered_share"] < 1 and multiscale["psnr_y"] != full["psnr_y"]
    assert full["gmacs"] > 0 and multiscale["gmacs"] is None
    assert "rendered" in (tmp_path / "out" / "table.md").read_text()


def test_tables_belong_to_one_of_the_networks(tmp_path: Path):
    """The other one has the same architecture, and no row of CMSR."""
    networks = [save(tmp_path / f"{name}.pth", "lm_lte", 4, {"n_blocks": 1, "n_feats": 8}) for name in "ab"]
    paths = [str(table_file(tmp_path / f"{i}.yaml", network, {6: {6: 1}})) for i, network in enumerate(networks)]
    weights = [str(tmp_path / "a.pth"), str(tmp_path / "b.pth")]
    one, both = (load_candidates(EvaluateSRConfig(weights=weights, scale=6.0, cmsr=c), CPU) for c in (paths[1], paths))
    assert [(c.weights, c.cmsr) for c in one[6]] == [(weights[0], None), (weights[1], None), (weights[1], paths[1])]
    assert [c.cmsr for c in both[6]] == [None, paths[0], None, paths[1]]
    assert both[6][0].network.cmsr is None and both[6][1].network.cmsr == {6: {6: 1}}


def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, photographs: Path):
    network = save(tmp_path / "lm.pth", "lm_lte", 4, {"n_blocks": 1, "n_feats": 8})
    save(tmp_path / "other.pth", "lm_lte", 4, {"n_blocks": 1, "n_feats": 8})
    own = table_file(tmp_path / "t.yaml", network, {6: {6: 1}})
    save_tables(tmp_path / "unmarked.yaml", TableFile({6: {6: 1}}, None))
    good = {"weights": tmp_path / "lm.pth", "hr": photographs, "scale": 6, "cmsr": own, "out": tmp_path / "out"}
    for changes, message in (
        (
            {"weights": tmp_path / "other.pth"},
            "t.yaml belongs to the network with the fingerprint .* none of the weights",
        ),
        ({"weights": "bicubic"}, "none of the weights holds it; make tables for it"),
        ({"scale": "[2, 4]"}, "cmsr: renders beyond x4 only; give a larger scale"),
        ({"tile": 8}, "cmsr and tile exclude each other"),
        ({"cmsr": tmp_path / "gone.yaml"}, "gone.yaml"),
        (
            {"cmsr": tmp_path / "unmarked.yaml", "weights": f"[{tmp_path / 'lm.pth'}, {tmp_path / 'other.pth'}]"},
            "does not say which of the networks it belongs to",
        ),
    ):
        options = [f"--{key}={value}" for key, value in (good | changes).items()]
        with pytest.raises((ValueError, OSError), match=message):
            main(["sr", "--device=cpu", "--timing_runs=0", *options])


def test_published_files_at_each_of_their_scales(tmp_path: Path, photographs: Path):
    """A file of CARN holds x2, x3 and x4; another scale is left out."""
    save_file(published.carn(None, n=8), tmp_path / "carn.safetensors")
    options = [f"--weights={tmp_path / 'carn.safetensors'}", f"--hr={photographs}", "--pictures=0", "--timing_runs=0"]
    rows = compare(tmp_path / "out", *options, "--scale=[2, 2.5, 4]")["rows"]
    assert [(row["arch"][:4], row["scale"]) for row in rows] == [("carn", 2), ("carn", 4)]


def test_bicubic_has_the_published_figures(shared_data):
    config = EvaluateSRConfig(weights="bicubic", hr=str(shared_data("sr_bench") / "Set5"), scale=4.0, timing_runs=0)
    (row,) = SREvaluation(load_candidates(config, CPU), config, CPU).rows(list_benchmarks(config)[0])
    assert row["psnr_y"] == pytest.approx(28.42, abs=0.02) and row["ssim_y"] == pytest.approx(0.8104, abs=0.001)


@pytest.mark.parametrize(("scale", "psnr", "ssim"), [(2, 32.63, 0.8861), (4, 29.97, 0.8129)])
def test_bicubic_has_the_figures_of_the_drawn_benchmark(tmp_path: Path, scale: int, psnr: float, ssim: float):
    """Those that tests/utils/test_metrics.py finds by other implementations."""
    folder = draw_sr_benchmark(tmp_path / "Drawn3", (scale,))
    config = EvaluateSRConfig(weights="bicubic", hr=str(folder), scale=float(scale), timing_runs=0)
    (row,) = SREvaluation(load_candidates(config, CPU), config, CPU).rows(list_benchmarks(config)[0])
    assert (row["dataset"], row["images"], row["border"]) == ("Drawn3", 3, scale)
    assert row["psnr_y"] == pytest.approx(psnr, abs=0.01) and row["ssim_y"] == pytest.approx(ssim, abs=0.0005)


def test_refusals(tmp_path: Path, photographs: Path, capsys):
    save(tmp_path / "a.pth", "espcn", 2, {"n_feats": 8})
    good = {"weights": tmp_path / "a.pth", "hr": photographs, "scale": 2, "out": tmp_path / "out"}
    for changes, kind, message in (
        ({"weights": ""}, ValueError, "no weights given"),
        ({"weights": tmp_path / "gone.pth"}, CheckpointError, r"gone\.pth: does not exist"),
        ({"scale": 4}, ValueError, r"a\.pth: espcn\(scale=2, n_feats=8\): it is for x2, not x4; name its own"),
        ({"weights": f"[{tmp_path / 'a.pth'}, {tmp_path / 'a.pth'}]"}, ValueError, "named twice"),
        ({"hr": ""}, ValueError, "no images given"),
        ({"hr": tmp_path / "nowhere"}, ValueError, "nowhere: no such folder"),
        ({"hr": f"[{photographs}, {photographs}]"}, ValueError, "one folder is given twice"),
        ({"lr": f"[{photographs}, {photographs}]"}, ValueError, "lr names 2 folders, but hr 1"),
        ({"border": 30}, ValueError, r"0\.png: .* pixels without a border of 30 are fewer"),
        ({"lpips": "[gone.pth]"}, CheckpointError, r"gone\.pth: does not exist; LPIPS needs"),
        ({"precision": "fp16"}, ValueError, "fp16 needs CUDA"),
    ):
        options = [f"--{key}={value}" for key, value in (good | changes).items()]
        with pytest.raises(kind, match=message):
            main(["sr", "--device=cpu", "--timing_runs=0", *options])
    with pytest.raises(SystemExit):
        main(["sr", "--weight=a.pth"])
    assert "did you mean --weights?" in capsys.readouterr().err


def test_picture_shows_where_bicubic_errs():
    hr = np.full((60, 80, 3), 90, np.uint8)
    hr[30:42:2, 50:62] = 255
    lr = cv2.resize(hr, (40, 30), interpolation=cv2.INTER_AREA)
    top, left, side = crop_place(cv2.resize(lr, (80, 60)), hr)
    assert side == 24 and top <= 30 and top + side >= 42 and left <= 50 and left + side >= 62
    picture = comparison_picture(lr, hr, {"x/a.pth": hr, "x/b.pth": hr}, {"x/a.pth": "edsr", "x/b.pth": "edsr"}, 2)
    assert picture.dtype == np.uint8 and picture.shape[1] > 5 * 300


def test_picture_of_a_very_wide_image_stays_small():
    hr = np.random.default_rng(0).integers(0, 256, (24, 4000, 3), np.uint8)
    picture = comparison_picture(hr[::2, ::2], hr, {"a": hr}, {"a": "edsr"}, 2)
    assert picture.shape[0] < 400 and picture.shape[1] < 1280 + 4 * 320


def test_files_of_one_name_are_told_apart(tmp_path: Path, photographs: Path, capsys):
    (tmp_path / "set/a").mkdir(parents=True)
    (tmp_path / "set/b").mkdir()
    for part, source in (("a", "0.png"), ("b", "1.png")):
        (tmp_path / "set" / part / "same.png").write_bytes((photographs / source).read_bytes())
        (tmp_path / part).mkdir()
        save(tmp_path / part / "best.pth", "espcn", 2, {"n_feats": 8})
    weights = f"[{tmp_path / 'a/best.pth'}, {tmp_path / 'b/best.pth'}]"
    results = compare(tmp_path / "out", "--weights", weights, "--hr", str(tmp_path / "set"), "--scale", "2")
    assert [list(row["psnr_y_per_image"]) for row in results["rows"]] == [["a/same", "b/same"]] * 2
    assert len(list((tmp_path / "out/comparison").rglob("*.png"))) == 2
    table = capsys.readouterr().out
    assert "| a/best.pth |" in table and "| b/best.pth |" in table


def test_short_names():
    assert short_names(["runs/x.pth"]) == {"runs/x.pth": "x.pth"}
    assert short_names(["a/r/x.pth", "b/r/x.pth", "y.pth"]) == {
        "a/r/x.pth": "a/r/x.pth", "b/r/x.pth": "b/r/x.pth", "y.pth": "y.pth"}  # fmt: skip


def test_images_that_differ_in_their_suffix_only_are_told_apart(tmp_path: Path):
    files = [(tmp_path / name, None) for name in ("a.jpg", "a.png")]
    assert Benchmark("set", 2, 2, files).names == ["a.jpg", "a.png"]
    assert Benchmark("set", 2, 2, files[:1]).names == ["a"]


def test_a_network_that_needs_values_has_no_gmacs():
    class NeedsValues(torch.nn.Module):
        scale, capabilities = 4, Capabilities(receptive_radius=0)

        def forward(self, lr):
            return lr * float(lr.cpu().max())

    assert NeedsValues()(torch.ones(1, 3, 4, 4)).shape == (1, 3, 4, 4)
    assert gmacs(Candidate("foreign", "foreign", NeedsValues()), 4) is None


def test_gmacs_of_bicubic_and_single_values():
    assert gmacs(Candidate("bicubic", "bicubic", BicubicToSize()), 4) == pytest.approx(
        (3 * 180 * 320 * 1280 + 3 * 720 * 180 * 1280) / 1e9
    )
    assert as_list("a") == ["a"] and as_list(["a", "b"]) == ["a", "b"]
