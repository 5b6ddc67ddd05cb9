"""Run the jobs of a plan: several at a time, resumable, each result kept under the hash of all that it depends on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no such locks; there, do not start two comparisons with one cache
    fcntl = None

from evaluation.comparison.job_hash import job_hash
from evaluation.comparison.jobs import STAGES, Job, JobPlan, fill, with_keys
from utils.atomic_file import replace_text
from utils.yaml_strict import dump_yaml

CONFIG, LOG, NOTE, LOCK, RUN = "config.yaml", "log.txt", "job.json", "lock", "run"
POLL_SECONDS = 0.2
GRACE_SECONDS = 20  # for a stage script to leave after it was asked to
TAIL_LINES = 12


@dataclass
class Outcome:
    """What came of a plan: run folder of every finished job, message of every failed one, jobs not begun for that."""

    finished: dict[str, Path] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)


@dataclass
class Running:
    """A job in a process of its own."""

    job: Job
    folder: Path
    process: subprocess.Popen
    lock: IO
    began: float


class Runner:
    """Runs what is missing of a plan.

    A job lives in CACHE/<name>-<first 12 of its hash>/: config.yaml, log.txt, job.json (name, whole hash, seconds), and
    run/, the run folder of its script. A kill at any instant loses nothing: every script is told to resume. While a
    script runs it holds a lock on its folder, which outlives this process, so no second one trains there.

    Args:
        plan: jobs, each after those that it needs.
        cache: folder of all results.
        jobs: processes at a time.
        say: receives one line per event.
    """

    def __init__(self, plan: JobPlan, cache: str | Path, jobs: int = 1, say: Callable[[str], object] = print):
        self.plan, self.cache, self.jobs, self.say = plan, Path(cache), jobs, say
        self.outcome, self.running = Outcome(), []
        self.waiting = list(plan.jobs.values())
        self.keys: dict[str, str] = {}
        self.busy: set[str] = set()

    def run(self) -> Outcome:
        """Finish all jobs that can be finished.

        Raises:
            KeyboardInterrupt: Ctrl-C, or a request to end; the scripts have ended by then.
        """
        with interruptible():
            try:
                while self.waiting or self.running:
                    self.collect()
                    while self.start_next():
                        pass
                    if self.waiting or self.running:
                        time.sleep(POLL_SECONDS)
            finally:
                self.stop()
        return self.outcome

    # ------------------------------------------------------------------------------------------------------ scheduling

    def start_next(self) -> bool:
        """Deal with the first waiting job that can be dealt with; False where there is nothing to do but wait."""
        for job in list(self.waiting):
            if any(name in self.outcome.failed or name in self.outcome.skipped for name in job.needs):
                self.waiting.remove(job)
                self.outcome.skipped.append(job.name)
                return True
            if not all(name in self.outcome.finished for name in job.needs):
                continue
            folder = self.folder(job)
            if (folder / RUN / STAGES[job.stage].output).exists():
                self.waiting.remove(job)
                self.finish(job, folder, "found")
                return True
            if len(self.running) >= (1 if job.alone else self.jobs) or any(other.job.alone for other in self.running):
                return False  # in order: what must run alone is not put off for ever
            if self.start(job, folder):
                return True
        return False

    def folder(self, job: Job) -> Path:
        """Where the job lives, whatever it was called when it was begun."""
        if job.name not in self.keys:
            self.keys[job.name] = job_hash(job, self.checkpoints(job))
        key = self.keys[job.name][:12]
        present = sorted(self.cache.glob(f"*-{key}"))
        return present[0] if present else self.cache / f"{job.name.replace('/', '_')}-{key}"

    def checkpoints(self, job: Job) -> dict[str, str]:
        """Path of the checkpoint of every job that it needs."""
        outputs = {name: STAGES[self.plan.jobs[name].stage].output for name in job.needs}
        return {name: str(self.outcome.finished[name] / output) for name, output in outputs.items()}

    # ---------------------------------------------------------------------------------------------------------- events

    def start(self, job: Job, folder: Path) -> bool:
        """Begin or continue a job; False where another process is at it."""
        folder.mkdir(parents=True, exist_ok=True)
        lock = locked(folder / LOCK)
        if lock is None:
            if job.name not in self.busy:
                self.say(f"{job.name}: another process is at it, waiting for {folder}")
            self.busy.add(job.name)
            return False
        stage = STAGES[job.stage]
        tree = with_keys(fill(job.config, self.checkpoints(job)), {"run.out": str(folder / RUN)})
        replace_text(folder / CONFIG, dump_yaml(tree))
        begun = (folder / RUN).exists()
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(stage.script), "--config", str(folder / CONFIG), "--resume"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends its scripts
                pass_fds=(lock.fileno(),) if fcntl else (),
            )
        self.waiting.remove(job)
        self.running.append(Running(job, folder, process, lock, time.monotonic()))
        self.say(f"{self.progress()} {job.name}: {'continued' if begun else 'begun'}, {folder / LOG}")
        return True

    def collect(self) -> None:
        """Take note of the processes that have ended."""
        for entry in [entry for entry in self.running if entry.process.poll() is not None]:
            self.running.remove(entry)
            self.note(entry)
            entry.lock.close()
            output = entry.folder / RUN / STAGES[entry.job.stage].output
            if entry.process.returncode == 0 and output.exists():
                self.finish(entry.job, entry.folder, f"finished after {minutes(time.monotonic() - entry.began)}")
                continue
            reason = f"{entry.job.name}: failed with status {entry.process.returncode}, see {entry.folder / LOG}"
            self.outcome.failed[entry.job.name] = f"{reason}\n{tail(entry.folder / LOG)}"
            self.say(self.outcome.failed[entry.job.name])

    def finish(self, job: Job, folder: Path, how: str) -> None:
        self.outcome.finished[job.name] = folder / RUN
        self.say(f"{self.progress()} {job.name}: {how}")

    def progress(self) -> str:
        return f"[{len(self.outcome.finished)}/{len(self.plan.jobs)}]"

    def note(self, entry: Running) -> None:
        """job.json: what this folder is, and how long its script ran in all."""
        seconds = spent_seconds(entry.folder) + time.monotonic() - entry.began
        note = {"name": entry.job.name, "stage": entry.job.stage, "key": self.keys[entry.job.name], "seconds": seconds}
        replace_text(entry.folder / NOTE, json.dumps(note, indent=1) + "\n")

    def stop(self) -> None:
        """End the scripts that still run, with the processes that they started."""
        for request in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
            for entry in self.running:
                with contextlib.suppress(ProcessLookupError):
                    end(entry.process, request)
            deadline = time.monotonic() + GRACE_SECONDS
            while any(entry.process.poll() is None for entry in self.running) and time.monotonic() < deadline:
                time.sleep(0.05)
        for entry in self.running:
            self.note(entry)
            entry.lock.close()
        self.running.clear()


def end(process: subprocess.Popen, request: int) -> None:
    """Send a signal to a script and to what it started, where groups of processes exist."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, request)
    else:
        process.terminate()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """A request to end (SIGTERM, a closed terminal) acts like Ctrl-C, so that the scripts end too."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def locked(path: Path) -> IO | None:
    """An open file with an exclusive lock, or None where another process has it."""
    file = path.open("a")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
    return file


def spent_seconds(folder: Path) -> float:
    """Seconds that the scripts of a job have run, over all continuations; 0 where nothing is known."""
    try:
        return float(json.loads((folder / NOTE).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0


def tail(log: Path) -> str:
    """The last lines of a log, of a progress bar only its last state."""
    lines = log.read_bytes().decode(errors="replace").rstrip().split("\n") if log.exists() else []
    shown = [line.rstrip().rpartition("\r")[2] for line in lines[-TAIL_LINES:]]
    return "\n".join(f"    {line}" for line in shown if line)


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
