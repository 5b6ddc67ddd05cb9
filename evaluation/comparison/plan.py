"""Which trainings and measurements a comparison needs, each as a script with its whole configuration."""

from __future__ import annotations

from typing import Any

from configs.compare_schema import CompareConfig
from configs.schema import OptimConfig
from evaluation.comparison.catalogue import BY_KEY, HR, WARM_UP, RowSpec, chosen
from evaluation.comparison.jobs import Job, JobPlan, Measurement, Trained, read_base, with_keys
from evaluation.comparison.plan_checks import check_comparison, check_halo, check_start
from evaluation.row_key import RowKey
from utils.config import config_to_dict

NO_DISTILLATION = {"losses.distill": 0.0, "losses.distill_outputs": 0.0}


class Planner:
    """Adds the jobs of a comparison to a plan, each once.

    Raises:
        ConfigError: a base YAML cannot be used.
        ValueError, FileNotFoundError: see `check_comparison`.
    """

    def __init__(self, config: CompareConfig):
        self.config, self.rows, self.plan = config, chosen(config.rows), JobPlan()
        self.stage1, self.stage3 = read_base(config.stage1, "stage1"), read_base(config.stage3, "stage3")
        self.stage3.pop("warm_up", None)  # here warm-ups are trainings of their own, which several rows share
        check_comparison(config, self.rows)

    def run_keys(self, seed: int) -> dict[str, Any]:
        return {"run.seed": seed, "run.threads": self.config.threads, "run.device": self.config.device}

    def data_keys(self) -> dict[str, Any]:
        return {"data.yaml": self.config.data} if self.config.data else {}

    def detector(self, seed: int, share: float) -> Trained:
        """Stage 1 that a share of the labels goes with."""
        share = 1.0 if self.config.stage1_labels == "all" else share
        seed = self.config.seeds[0] if self.config.shared_detector and share == 1 else seed
        keys = self.data_keys() | self.config.overrides.get("stage1", {}) | label_keys(share, seed)
        tree = with_keys(self.stage1, keys | self.run_keys(seed))
        return self.plan.add(Job(f"stage1-labels{share:g}-seed{seed}", "stage1", tree))

    def deployed(self, seed: int) -> Trained:
        """The detector of the frozen family, trained with all labels."""
        return self.detector(seed, 1.0)

    def row_keys(self, row: RowSpec) -> dict[str, Any]:
        """Keys in which the training of a row differs from the base YAML, whatever the seed and the labels."""
        config, overrides = self.config, self.config.overrides
        keys = self.data_keys() | ({"data.scale": config.scale} if config.scale else {})
        epochs = config.epochs if row.labels else config.unlabelled_epochs or config.epochs
        keys |= {"optim.epochs": epochs} if epochs else {}
        if row.slices:  # it learns from slices as they will be cut
            keys |= {f"slices.{key}": getattr(config.sliced, key) for key in ("rows", "columns", "overlap", "full")}
        if row.distilled:
            keys |= {"losses.distill": config.distill, "losses.distill_outputs": config.distill_outputs}
        for group in ("stage3", row.family, row.name):
            keys |= overrides.get(group, {})
        keys |= {"sr_fast.weights": config.sr_fast, "sr_quality.weights": config.sr_quality} | row.stage3
        return keys | ({} if row.distilled else NO_DISTILLATION)

    def few_labels(self, row: RowSpec, share: float, seed: int) -> dict[str, Any]:
        """Which labels a row sees, and for how many epochs if they are few."""
        fewer = max(self.config.label_shares) / share
        if fewer > 1 and row.distilled and row.family in self.config.sweep_unlabelled:
            return label_keys(share, seed) | {"data.unlabelled": True}
        times = min(fewer, self.config.sweep_epochs)
        if times <= 1:
            return label_keys(share, seed)
        return label_keys(share, seed) | {"optim.epochs": round(times * self.epochs(row))}

    def row(
        self, row: RowSpec, seed: int, share: float, extra: dict[str, Any] | None = None, name: str = ""
    ) -> Trained:
        """Stage 3 of a row; one that looks at no labels is the same for every label share.

        Args:
            row: of the catalogue, with a training.
            seed: repetition.
            share: of the training images with labels.
            extra: further keys by dotted name, of a recipe study; `start: null` leaves the warm-up out.
            name: of the job, if not that of the row.
        """
        detector = self.deployed(seed) if row.family == "frozen" else self.detector(seed, share)
        labels = f"labels{share:g}-" if row.labels else ""
        keys = (self.few_labels(row, share, seed) if row.labels else {}) | (extra or {})
        return self.training(row, seed, detector, f"{name or row.name}-{labels}seed{seed}", keys)

    def training(self, row: RowSpec, seed: int, detector: Trained, name: str, extra: dict[str, Any]) -> Trained:
        """Stage 3 of a row through this detector, and the warm-up of its front end before it."""
        keys = self.row_keys(row) | self.masker_alone(row, seed, detector) | self.as_long(row) | extra
        keys |= self.run_keys(seed) | {"detector.weights": detector}
        tree = with_keys(self.stage3, keys)
        if isinstance(tree.get("sr_quality", {}).get("weights"), Trained):
            check_start(name, tree | {"sr": "sr_quality"}, self.plan.jobs[tree["sr_quality"]["weights"].job])
        if row.warm and self.config.warm_up and "start" not in extra:
            tree["start"] = self.warm_up(row.warm, seed, detector)
            check_start(name, tree, self.plan.jobs[tree["start"].job])
        return self.plan.add(Job(name, "stage3", tree))

    def masker_alone(self, row: RowSpec, seed: int, detector: Trained) -> dict[str, Any]:
        """Keys with which masker and SR_Fast learn beside a finished SR_Quality, see `masker_epochs`."""
        if self.config.masker_epochs is None or row.key != WARM_UP["conditional"]:
            return {}
        quality = self.warm_up(WARM_UP["sr_quality"], seed, detector)
        return {"sr_quality.weights": quality, "freeze": ["sr_quality"], "optim.epochs": self.config.masker_epochs}

    def as_long(self, row: RowSpec) -> dict[str, Any]:
        """SR_Fast everywhere without labels learns as long as the whole conditional warm-up, see `masker_epochs`."""
        if self.config.masker_epochs is None or row.key != WARM_UP["sr_fast"]:
            return {}
        quality = BY_KEY[WARM_UP["sr_quality"]]
        return {"optim.epochs": self.epochs(quality) + self.config.masker_epochs}

    def epochs(self, row: RowSpec) -> int:
        """Of the training of a row that sees all images."""
        return with_keys(self.stage3, self.row_keys(row)).get("optim", {}).get("epochs", OptimConfig().epochs)

    def warm_up(self, key: RowKey, seed: int, detector: Trained) -> Trained:
        """The front end of this row without labels, trained through this detector."""
        row = BY_KEY[key]
        known = detector == self.deployed(seed)  # then it is the row itself
        job = f"{key.name}-seed{seed}" if known else f"warm_up-{key.short}-{detector.job}"
        return self.training(row, seed, detector, job, {})

    def measurement(self, seed: int, share: float) -> None:
        """One evaluation of all rows of a seed; rows without labels are measured with the largest share only."""
        config, measure, main = self.config, self.config.measure, share == max(self.config.label_shares)
        repeated = seed == config.seeds[0] or not config.repeat_rows
        wanted = self.rows if repeated else [row for row in chosen(config.repeat_rows) if row in self.rows]
        swept = chosen(config.sweep_rows)
        shown = [row for row in wanted if main or (row.labels and row in swept)]
        trained = {row.key: self.row(row, seed, share) for row in shown if row.trained}
        if not trained:
            return
        for row in trained.values():
            check_halo(measure.halo, self.plan.jobs[row.job])
        timed = main and seed == config.seeds[0]
        tree = {"data": self.evaluation_data(), "split": measure.split, "budgets": measure.budgets}
        tree |= {"halo": measure.halo, "batch": measure.batch, "limit": measure.limit}
        tree |= {"backend": measure.backend}
        tree |= {"timing_runs": measure.timing_runs if timed else 0, "overlays": measure.overlays if timed else 0}
        tree |= {"save_detections": timed} | self.measured_rows(shown, trained, seed)
        keys = self.run_keys(seed) | {"run.precision": measure.precision}
        keys |= {"run.workers": self.stage3.get("run", {}).get("workers", 2)}
        job = Job(f"measure-labels{share:g}-seed{seed}", "evaluate", with_keys(tree, keys), alone=timed)
        self.plan.add(job)
        self.plan.measurements.append(Measurement(job.name, seed, share))

    def measured_rows(self, shown: list[RowSpec], trained: dict[RowKey, Trained], seed: int) -> dict[str, Any]:
        """The keys of evaluate.py that name rows, and say what they are."""
        config, slices = self.config, config_to_dict(self.config.sliced)
        stock = [row.key.short for row in shown if row.shown == "stock"]
        tree: dict[str, Any] = {"baselines": stock}
        if stock:
            tree |= {"detector": self.deployed(seed), "sr_fast": config.sr_fast, "sr_quality": config.sr_quality}
        tree["systems"] = {row.name: trained[row.key] for row in shown if row.shown == "system"}
        tree["detectors"] = {row.name: trained[row.key] for row in shown if row.shown == HR}
        tree["sliced"] = {
            row.name: slices | {"weights": trained.get(row.of or row.key) or self.deployed(seed)}
            for row in shown
            if row.slices
        }
        for row in shown:
            if row.shown == "sahi":
                tree["sliced"][row.name]["library"] = "sahi"
        fields = ("system", "family", "recipe", "upscale")
        records = {row.name: row.key.record() for row in shown if row.shown != "stock"}
        return tree | {"records": {name: {key: record[key] for key in fields} for name, record in records.items()}}

    def evaluation_data(self) -> dict[str, Any]:
        """The data section of stage 3, without what concerns training."""
        keys = self.data_keys() | ({"data.scale": self.config.scale} if self.config.scale else {})
        keys |= {k: v for k, v in self.config.overrides.get("stage3", {}).items() if k.startswith("data.")}
        return with_keys(self.stage3, keys).get("data", {})


def label_keys(share: float, seed: int) -> dict[str, Any]:
    return {} if share == 1 else {"data.label_share": share, "data.label_seed": seed}


def build_plan(config: CompareConfig) -> JobPlan:
    """All jobs, seed by seed and the largest label share first, so that the first tables come early. Raises as
    `Planner`."""
    planner = Planner(config)
    for seed in config.seeds:
        for share in sorted(config.label_shares, reverse=True):
            if share == max(config.label_shares) or config.sweep_seeds is None or seed in config.sweep_seeds:
                planner.measurement(seed, share)
    return planner.plan
