"""How many small mutations of the code the tests notice (mutation score).

    python -m tools.mutation_score --out runs/mutations
    python -m tools.mutation_score --out runs/mutations --only masker --jobs 2
    python -m tools.mutation_score --out runs/mutations --page docs/results/mutation.md

Applies the mutations of tools/mutations.yaml one at a time, in a temporary copy of the project, and runs the test files
of that room, without those marked slow. Only what passes unchanged counts, so these files run once as they are, too.
What is known of the present code and its tests is in OUT/results.json and not run again. Takes about an hour.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

ROOT = Path(__file__).resolve().parents[1]
TABLE = "tools/mutations.yaml"
# Imported once, by the process that all test runs are forked from; nothing that reads this project's settings.
LIBRARIES = (
    "torch", "torchvision", "accelerate", "scipy.sparse", "cv2", "PIL.Image", "skimage.metrics", "matplotlib.figure",
    "pycocotools.cocoeval", "spandrel", "hypothesis", "pytest",
)  # fmt: skip
PYTEST = ("-q", "-x", "-m", "not slow", "-p", "no:xdist", "-p", "no:cacheprovider")
KILLED, SURVIVED, TIMEOUT, STALE, BROKEN = "killed", "survived", "timeout", "stale", "tests fail unchanged"
STATUSES = (KILLED, SURVIVED, TIMEOUT, STALE, BROKEN)
GRACE, FACTOR = 60, 10  # a run may take so many seconds, and so many times those that it takes unchanged

HEAD = """# Mutation score

{killed} of {counted} small mutations of the code ({share:.0%}) are noticed by the test files that mirror it, slow tests
apart: `python -m tools.mutation_score --out runs/mutations`, commit {commit}, {date}, {cpu}, {cores} cores. They are
in `{table}`, written by hand, a few for each kind of fault that a room can have; {first}

| room | mutations | noticed | not noticed |
|---|---:|---:|---|
"""


@dataclass(frozen=True)
class Mutation:
    """One change of one file.

    Args:
        file: that is changed, from the project's root.
        tests: test files that mirror it.
        breaks: what is wrong then, a few words.
        old: text that occurs exactly once in the file.
        new: what stands there instead.
    """

    file: str
    tests: tuple[str, ...]
    breaks: str
    old: str
    new: str

    @property
    def room(self) -> str:
        return self.file.partition("/")[0]

    @property
    def name(self) -> str:
        return f"{self.file}: {self.breaks}"

    def applied(self, text: str) -> str | None:
        """The file's text with the change; None where `old` does not occur exactly once."""
        return text.replace(self.old, self.new) if text.count(self.old) == 1 else None


def read_table(file: Path) -> list[Mutation]:
    """Mutations of a YAML table, in its order."""
    from utils.yaml_strict import load_yaml

    return [
        Mutation(group["file"], tuple(group["tests"].split()), entry["breaks"], entry["old"], entry["new"])
        for group in load_yaml(file)
        for entry in group["mutations"]
    ]


def digest(*parts: object) -> str:
    """Of texts and of the present content of files."""
    plain = [part.read_text(encoding="utf-8") if isinstance(part, Path) else part for part in parts]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


def copy_project(folder: Path) -> None:
    """Copy the files that git knows or would take."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def pytest_in(folder: Path, tests: tuple[str, ...], output: Path) -> None:
    """Run pytest in a copy and end with its status; a process of its own, which knows nothing of this project yet."""
    os.setsid()
    with output.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # tests start processes as ever
    # Without bytecode: a change within a second that keeps the file's size would meet the code of before.
    os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "1", True
    own = Path(__file__).resolve().parents[1]
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        if file.is_relative_to(own) and not file.is_relative_to(sys.prefix):  # the environment may lie in the project
            del sys.modules[name]
    sys.path[:] = [str(folder), *(place for place in sys.path if Path(place).resolve() != own)]
    import pytest

    sys.exit(pytest.main([*PYTEST, *tests]))


def run_tests(folder: Path, tests: tuple[str, ...], limit: float | None) -> tuple[int | None, str]:
    """Exit status of pytest in a copy, None where it ran past the limit; and the first failure, or its last line."""
    output = folder.with_suffix(".txt")
    process = multiprocessing.get_context("forkserver").Process(target=pytest_in, args=(folder, tests, output))
    process.start()
    try:
        process.join(limit)
    finally:
        status = process.exitcode
        if status is None:  # with everything that the tests have started
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines() if line.strip()] or [""]
    return status, next((line for line in lines if line.startswith(("FAILED", "ERROR"))), lines[-1])[:200]


class Score:
    """Results by key, kept in a file that is whole at any time.

    Args:
        file: results.json.
    """

    def __init__(self, file: Path):
        self.file, self.lock = file, Lock()
        self.known: dict[str, dict] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def keep(self, key: str, result: dict) -> dict:
        from utils.atomic_file import replace_text

        with self.lock:
            self.known[key] = result
            replace_text(self.file, json.dumps(self.known, indent=1) + "\n")
        return result

    def unchanged(self, mutation: Mutation, folder: Path) -> dict:
        """{"passes", "seconds", "detail"} of a mutation's tests as they are."""
        key = "unchanged " + digest(ROOT / mutation.file, *(ROOT / test for test in mutation.tests))
        if key in self.known:
            return self.known[key]
        began = time.monotonic()
        status, detail = run_tests(folder, mutation.tests, None)
        seconds = round(time.monotonic() - began, 1)
        found = {"passes": status == 0, "seconds": seconds, "detail": detail}
        return self.keep(key, found) if found["passes"] else found  # what fails may pass the next time

    def of(self, mutation: Mutation, folder: Path) -> dict:
        """{"status", "seconds", "detail"} and what the mutation is.

        Args:
            folder: copy of the project, which is as it was afterwards.
        """
        files = [ROOT / name for name in (mutation.file, *mutation.tests)]
        about = {"file": mutation.file, "breaks": mutation.breaks, "tests": mutation.tests}
        if not all(file.is_file() for file in files):
            return about | {"status": STALE, "seconds": 0.0, "detail": "a file is missing"}
        key = digest(mutation.old, mutation.new, *files)
        if key in self.known:
            return self.known[key]
        path = folder / mutation.file
        text = path.read_text(encoding="utf-8")
        changed = mutation.applied(text)
        if changed is None:
            return about | {"status": STALE, "seconds": 0.0, "detail": f"occurs {text.count(mutation.old)} times"}
        plain = self.unchanged(mutation, folder)
        if not plain["passes"]:
            return about | {"status": BROKEN, "seconds": plain["seconds"], "detail": plain["detail"]}
        began = time.monotonic()
        path.write_text(changed, encoding="utf-8")
        try:
            status, detail = run_tests(folder, mutation.tests, GRACE + FACTOR * plain["seconds"])
        finally:
            path.write_text(text, encoding="utf-8")
        named = {0: SURVIVED, 5: SURVIVED, None: TIMEOUT}.get(status, KILLED)  # 5: no test at all
        seconds = round(time.monotonic() - began, 1)
        return self.keep(key, about | {"status": named, "seconds": seconds, "detail": detail})


def measure(mutations: list[Mutation], score: Score, jobs: int) -> list[dict]:
    """Results of all mutations, in their order, each printed as it comes."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    multiprocessing.get_context("forkserver").set_forkserver_preload([*LIBRARIES])
    with tempfile.TemporaryDirectory(prefix="mutations") as temporary:
        free: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            folder = Path(temporary) / str(number)
            copy_project(folder)
            free.put(folder)

        def one(mutation: Mutation) -> dict:
            folder = free.get()
            try:
                result = score.of(mutation, folder)
            finally:
                free.put(folder)
            print(f"{result['status']:9} {mutation.name} ({result['seconds']:g} s, {result['detail']})", flush=True)
            return result

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, mutations))


def page(results: list[dict], about: dict, first: str) -> str:
    """The results as Markdown, by room.

    Args:
        about: `utils.logger.environment()`.
        first: a sentence about earlier runs, without its full stop.
    """
    counted = [result for result in results if result["status"] in (KILLED, SURVIVED, TIMEOUT)]
    killed = sum(result["status"] == KILLED for result in counted)
    head = HEAD.format(
        killed=killed, counted=len(counted), share=killed / max(1, len(counted)), table=TABLE, first=f"{first}.",
        commit=(about["git"] or {}).get("commit", "unknown")[:7], date=about["date"][:10], cpu=about["cpu"],
        cores=about["cpu_cores"],
    )  # fmt: skip
    rows = []
    for room in dict.fromkeys(result["file"].partition("/")[0] for result in counted):
        own = [result for result in counted if result["file"].startswith(f"{room}/")]
        left = [f"{Path(r['file']).name}: {r['breaks']}" for r in own if r["status"] != KILLED]
        rows.append(f"| {room} | {len(own)} | {len(own) - len(left)} | {'; '.join(left)} |")
    return head + "\n".join(rows) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutation_score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of results.json; what is there is not repeated")
    parser.add_argument("--only", default="", metavar="TEXT", help="mutations whose file or description holds this")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="test runs at a time (%(default)s)")
    parser.add_argument("--page", type=Path, help="write the results as Markdown, too")
    parser.add_argument("--note", default="all of them can be run again", help="what the page says of earlier runs")
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error("--jobs: give 1 or more")

    from utils.atomic_file import replace_text
    from utils.logger import environment

    mutations = [mutation for mutation in read_table(ROOT / TABLE) if options.only in mutation.name]
    if not mutations:
        parser.error(f"--only {options.only}: no such mutation in {TABLE}")
    options.out.mkdir(parents=True, exist_ok=True)
    results = measure(mutations, Score(options.out / "results.json"), options.jobs)
    if options.page is not None:
        replace_text(options.page, page(results, environment(), options.note))
    counts = Counter(result["status"] for result in results)
    print(f"{len(results)} mutations: " + ", ".join(f"{counts[s]} {s}" for s in STATUSES if counts[s]))
    return 0 if counts[KILLED] == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
