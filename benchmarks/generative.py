"""Diffusion systems beside regression networks: image quality, cost, memory, and what they cost on chosen patches.

    python -m benchmarks.generative --data datasets --baselines runs/generative/published

measures bicubic interpolation, every weight file of `--baselines` (a `.safetensors` and its card, as `python -m
tools.publish_weights --out runs/generative/published` writes them) and the shipped weights of the diffusion systems, on
the held-out images of HIT-UAV and RSSCN7. It writes docs/results/generative.json after each part, and the page from it.
What the JSON already holds of the same weight files is not measured again; `--redo` does.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "generative.json"
DATA = {"HIT-UAV": ("hit_uav/images/test", (4.0,)), "RSSCN7": ("rsscn7/test", (2.0, 2.6, 4.0))}
MACHINE = ("date", "git", "versions", "platform", "cpu", "cpu_cores")
PARTS = ("quality", "memory", "conditional")
OUTPUT = 2048  # pixels a side of the image whose memory is measured
KEPT = 0.1
PEAK_SECONDS = 3600  # longest that the large image may take


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with hit_uav/ and rsscn7/")
    parser.add_argument("--baselines", type=Path, help="folder of weight files with cards (default: none)")
    parser.add_argument("--systems", type=Path, nargs="+", help="weight files instead of the shipped ones")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    parser.add_argument("--lpips", nargs="+", default=[], help="weight files of LPIPS (default: no LPIPS)")
    parser.add_argument("--fid", help="weight file of the FID's InceptionV3 (default: no FID)")
    parser.add_argument("--limit", type=int, default=40, help="images of each data set, evenly spread; 0 takes all")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each network")
    parser.add_argument("--lr", type=int, default=384, help="LR pixels a side of the image of the conditional rows")
    parser.add_argument("--patch", type=int, default=64, help="LR pixels a side of its patches")
    parser.add_argument("--output", type=int, default=OUTPUT, help="pixels a side of the image of the memory rows")
    parser.add_argument("--memory-mb", type=int, default=1024, help="what one call may take there, and on patches")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0, help="of the noise and of the mask")
    parser.add_argument("--json", type=Path, default=RESULTS, help="results; the page lies beside it")
    parser.add_argument("--redo", action="store_true", help="measure what is there already once more")
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)  # the fresh process of a memory row
    options = parser.parse_args(argv)

    from utils.device import set_threads

    set_threads(options.threads)
    if options.peak:
        print(json.dumps(peak(options)))
        return 0
    if "quality" in options.parts and options.data is None:
        parser.error("--data is missing: the folder with hit_uav/ and rsscn7/")
    results = measure(options)
    print(f"{options.json} and {options.json.with_suffix('.md')}, {len(results['quality'])} rows of quality")
    return 0


def measure(options) -> dict:
    """Everything that is asked for and not there yet; JSON and page are written after each part."""
    from evaluation.generative_report import page
    from loading.shipped_weights import ONLY_BY_NAME, shipped_specs
    from utils.atomic_file import replace_text
    from utils.errors import UserError
    from utils.logger import environment

    shipped = [file for file, spec in shipped_specs().items() if spec["name"] in ONLY_BY_NAME]
    systems = options.systems or shipped
    baselines = sorted(options.baselines.glob("*.safetensors")) if options.baselines else []
    missing = [file for file in systems if not file.is_file()]
    if missing or (options.baselines and not baselines):
        raise UserError(f"no weight file: {missing[0] if missing else options.baselines}")
    results: dict = {"networks": {}, "quality": [], "memory": [], "conditional": []}
    if options.json.is_file() and not options.redo:
        results |= json.loads(options.json.read_text(encoding="utf-8"))
    results["networks"] |= {file.stem: described(file) for file in (*baselines, *systems)}
    made = environment() | {"threads": options.threads}
    results["environment"] = {key: made[key] for key in (*MACHINE, "threads")}
    results |= {"command": command(options), "seed": options.seed, "rounds": options.rounds}

    def save() -> None:
        replace_text(options.json, json.dumps(results, indent=1) + "\n")
        replace_text(options.json.with_suffix(".md"), page(results))

    if "quality" in options.parts:
        add_quality(results, [*baselines, *systems], options, save)
    for part, row in (("memory", memory_row), ("conditional", conditional_row)):
        for file in systems if part in options.parts else ():
            rows = {entry["network"]: entry for entry in results[part]}
            digest = results["networks"][file.stem]["sha256"]
            if rows.get(file.stem, {}).get("sha256") != digest:
                print(f"{part}: {file.stem}", flush=True)
                rows[file.stem] = {"network": file.stem, "sha256": digest} | row(file, options)
                results[part] = list(rows.values())
                save()
    save()
    return results


def command(options) -> str:
    """The command that measures this again, with the places where the documentation keeps data and weights."""
    words = ["--data", "datasets", *(["--baselines", "runs/generative/published"] if options.baselines else [])]
    if options.lpips:
        words += ["--lpips", *(Path(file).name for file in options.lpips)]
    words += ["--fid", Path(options.fid).name] if options.fid else []
    words += ["--limit", str(options.limit)]
    return shlex.join(["python", "-m", "benchmarks.generative", *words])


def described(file: Path) -> dict:
    """What a weight file holds, and what its card says of its training."""
    import hashlib

    from loading.load_sr import load_sr

    card = file.with_suffix(".md")
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    told = {key: found[1].strip() for key in ("data", "protocol", "training")
            if (found := re.search(rf"^\| {key} \|(.*)\|$", text, re.MULTILINE))}  # fmt: skip
    command = re.search(r"^python stage2_pretrain_sr.py .*$", text, re.MULTILINE)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    network = load_sr(file)
    can = network.capabilities
    return {"sha256": digest, "name": network.spec["name"], "args": network.spec["args"], "steps": can.steps} | {
        **told, "command": command[0] if command else None
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- quality


def add_quality(results: dict, weights: list[Path], options, save: Callable[[], None]) -> None:
    """Rows of `evaluate.py sr` of every network on every data set and scale that it has."""
    from configs.sr_schema import EvaluateSRConfig
    from evaluation.sr_benchmarks import list_benchmarks
    from evaluation.sr_candidates import BICUBIC, load_candidates
    from evaluation.sr_evaluation import SREvaluation
    from loading.load_inception import load_inception
    from loading.load_lpips import load_lpips
    from utils.device import choose_device
    from utils.timing import spread

    device = choose_device("cpu")
    lpips = load_lpips(options.lpips) if options.lpips else None
    inception = load_inception(options.fid) if options.fid else None
    names = {BICUBIC: BICUBIC} | {str(file): file.stem for file in weights}
    for title, (folder, scales) in DATA.items():
        config = EvaluateSRConfig(
            weights=[BICUBIC, *(str(file) for file in weights)], hr=str(options.data / folder), scale=list(scales),
            timing_runs=options.rounds, seed=options.seed, threads=options.threads, out=str(options.json.parent),
        )  # fmt: skip
        every = load_candidates(config, device)
        for benchmark in list_benchmarks(config):
            count = len(benchmark.files)
            files = [benchmark.files[number] for number in spread(count, options.limit or count)]
            benchmark = replace(benchmark, files=files)
            known = {row["network"]: row for row in results["quality"] if is_of(row, title, benchmark.scale)}
            here = every[benchmark.scale]
            wanted = [c for c in here if not is_known(known.get(names[c.weights]), len(files), results, options)]
            if not wanted:
                continue
            evaluation = SREvaluation({benchmark.scale: wanted}, config, device, lpips, inception)
            for row in evaluation.rows(benchmark):
                name = names[row.pop("weights")]
                del row["psnr_y_per_image"]
                digest = results["networks"].get(name, {}).get("sha256")
                known[name] = row | {"network": name, "sha256": digest, "dataset": title}
            others = [row for row in results["quality"] if not is_of(row, title, benchmark.scale)]
            rows = [*others, *(known[name] for name in names.values() if name in known)]
            results["quality"] = sorted(rows, key=lambda row: (list(DATA).index(row["dataset"]), row["scale"]))
            save()


def is_of(row: dict, dataset: str, scale: float) -> bool:
    return (row["dataset"], row["scale"]) == (dataset, scale)


def is_known(row: dict | None, images: int, results: dict, options) -> bool:
    """Whether a row is one of the present weight file, of these images, with the figures that are asked for."""
    if row is None or row["images"] != images:
        return False
    same = row["sha256"] == results["networks"].get(row["network"], {}).get("sha256")
    return same and (row["lpips"] is not None or not options.lpips) and (row["fid"] is not None or not options.fid)


# -------------------------------------------------------------------------------------------------- memory, conditional


def memory_row(file: Path, options) -> dict:
    """Peak memory of a process that does nothing but make one large image."""
    asked = {"output": options.output, "memory-mb": options.memory_mb, "threads": options.threads}
    words = [word for key, value in asked.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.generative", "--peak", str(file.resolve()), *words],
        cwd=ROOT, capture_output=True, text=True, timeout=PEAK_SECONDS,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{file}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak(options) -> dict:
    """Peak resident set before and after one image of `output` pixels a side, in MB, and seconds for it."""
    import resource
    import time

    from prediction.super_resolver import SuperResolver

    resolver = SuperResolver(options.peak, device="cpu", memory_mb=options.memory_mb)
    scale = resolver.network.scale
    image = photograph(round(options.output / scale))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    sr = resolver.image(image)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kilobyte = 1024 / 1e6  # Linux counts in units of 1024 bytes
    return {
        "scale": scale, "output": list(sr.shape[:2]), "memory_mb": options.memory_mb, "seconds": seconds,
        "rest_mb": before * kilobyte, "peak_mb": after * kilobyte, "tile": resolver.inference.tile,
    }  # fmt: skip


def photograph(side: int):
    """A square photograph, uint8 (side, side, 3), mirrored where it is too small."""
    import numpy as np
    from skimage.data import astronaut

    image = astronaut()
    missing = max(0, side - len(image))
    return np.ascontiguousarray(np.pad(image, ((0, missing), (0, missing), (0, 0)), mode="symmetric")[:side, :side])


def conditional_row(file: Path, options) -> dict:
    """Milliseconds with a system as SR_Quality: on a tenth of the patches, on all, and everywhere in one call."""
    import numpy as np
    import torch

    from deployment.prepare import prepare_front
    from loading.load_sr import load_sr
    from models import build_sr
    from models.arbitrary_scale import seeded
    from models.conditional_sr import ConditionalSR
    from models.execution import Execution
    from models.mask_policy import GivenMask
    from models.masker import Masker
    from utils.convert import to_tensor
    from utils.timing import measure_interleaved

    quality = seeded(load_sr(file).eval(), options.seed)
    fast, patch = build_sr("bicubic", quality.scale), options.patch
    front = ConditionalSR(Masker(patch), fast, quality, Execution(halo=None)).eval()
    front = prepare_front(front, torch.device("cpu"), torch.float32, options.memory_mb)
    lr, side = to_tensor(photograph(options.lr), "cpu"), -(-options.lr // patch)
    kept = np.zeros(side * side, bool)
    kept[np.random.default_rng(options.seed).permutation(side * side)[: round(KEPT * side * side)]] = True
    some = torch.from_numpy(kept).view(1, side, side)
    calls = {
        "tenth": lambda: front.infer(lr, GivenMask(some)),
        "all": lambda: front.infer(lr, GivenMask(torch.ones_like(some))),
        "dense": lambda: front.sr_quality(lr),
    }
    with torch.inference_mode():
        taken = measure_interleaved(calls, options.rounds, 1, torch.device("cpu"))
    times = {name: np.array(timing.samples) for name, timing in taken.items()}
    return {
        "scale": quality.scale, "lr": [options.lr, options.lr], "patch": patch, "halo": quality.capabilities.halo,
        "patches": side * side, "kept": float(kept.mean()), "rounds": options.rounds,
        **{f"{name}_ms": float(np.median(values)) for name, values in times.items()},
        "to_all": float(np.median(times["tenth"] / times["all"])),
        "to_dense": float(np.median(times["tenth"] / times["dense"])),
    }  # fmt: skip


if __name__ == "__main__":
    from utils.cli import run

    run(main)
