"""Runs a plan on Ray Data: actors that hold one model each take chunk after chunk and write their tables themselves."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.bulk.attempts import careful_results
from apps.bulk.finder import Find
from apps.bulk.plan import Plan, read_plan
from apps.bulk.tables import finished, write_part
from utils.errors import UserError
from utils.extras import require
from utils.progress import ProgressBar

ROOT = Path(__file__).resolve().parents[2]
OBJECT_STORE = 100_000_000  # bytes; only numbers of chunks and counts pass through it
ATTEMPTS = 3  # to start Ray on a busy machine


@dataclass(frozen=True)
class Workers:
    """Processes that work at the same time.

    Args:
        count: how many.
        cpus, gpus: of each, as Ray counts them; a share of a GPU is possible.
        address: of a Ray cluster, None starts one on this machine, for this run, that listens on 127.0.0.1 only.
    """

    count: int
    cpus: float = 1
    gpus: float = 0
    address: str | None = None


class ChunkWorker:
    """The actor.

    Args:
        make: loads the model.
        out: folder of the plan and the results, on a disk that all workers share.
    """

    def __init__(self, make: Callable[[], Find], out: str):
        self.find, self.out = make(), Path(out)
        self.chunks = read_plan(self.out).chunks  # not as rows: Arrow holds no names that are not UTF-8

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return compute(self.find, self.out, self.chunks[row["chunk"]], row["chunk"])


def compute(find: Find, out: Path, chunk: list[str], number: int) -> dict[str, int]:
    """Find in the files of one chunk, and write its tables; see `write_part`."""
    note = out / "running" / f"part-{number:06d}.json"
    return write_part(out, number, careful_results(find, [Path(path) for path in chunk], note))


def start_ray(workers: Workers) -> Any:
    """Ray, connected; without telemetry, dashboard or progress bars of its own."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before the import
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "180000")
    os.environ.setdefault("RAY_worker_niceness", "0")  # as the plain loop; 15 starves on a busy machine
    if workers.address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # no machine but this one: sockets on 127.0.0.1
    ray = require("ray", "bulk", "bulk inference")
    require("ray.data", "bulk", "bulk inference")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    how: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": path}}, "log_to_driver": False}
    if workers.address is not None:
        how |= {"address": workers.address}
    else:
        how |= {"num_cpus": math.ceil(workers.count * workers.cpus) + 1}  # one for what Ray Data does itself
        how |= {} if workers.gpus else {"num_gpus": 0}
        how |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    for attempt in range(ATTEMPTS):
        try:
            ray.init(**how)
            break
        except Exception as error:  # Ray raises plain ones; it gives its own helpers 30 s to start
            ray.shutdown()
            if attempt == ATTEMPTS - 1 or workers.address is not None:
                what = " ".join(str(error).split())[:200]
                raise UserError(
                    f"Ray could not be started or reached ({what}); try again, or check --address"
                ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a chunk that fails is missing at the end, and the next run takes it again
    return ray


def run_plan(plan: Plan, out: Path, make: Callable[[], Find], workers: Workers) -> Counter:
    """Compute all chunks that are missing.

    Args:
        plan: of the results in `out`.
        make: loads the model, in each worker; must be picklable.

    Returns:
        Numbers of files by status, and of boxes, of the chunks computed now; `missing`: chunks that could not be.
    """
    left = sorted({*range(len(plan.chunks))} - finished(out))
    counts: Counter = Counter()
    if not left:
        return counts
    ray = start_ray(workers)
    try:
        rows = [{"chunk": chunk} for chunk in left]
        done = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            ChunkWorker,
            fn_constructor_kwargs={"make": make, "out": str(out)},
            compute=ray.data.ActorPoolStrategy(size=min(workers.count, len(left))),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
        )
        with ProgressBar(len(plan.chunks), "chunks", initial=len(plan.chunks) - len(left)) as bar:
            for row in done.iter_rows():
                counts.update(row)
                bar.update()
    finally:
        ray.shutdown()
    counts["missing"] = len({*left} - finished(out))
    return counts
