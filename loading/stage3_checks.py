"""Combinations of stage 3's keys that make no sense together; the scripts refuse them before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from configs.stage3_schema import Stage3Config
from loading.warm_up import stage3_phases
from utils.errors import UserError

FRONT_PARTS = ("masker", "sr_fast", "sr_quality")


def check_stage3(config: Stage3Config) -> None:
    """Raises ValueError naming the keys and the remedy, FileNotFoundError for a missing data-set YAML."""
    if config.mode == "detector_only" and config.sr == "conditional":
        raise UserError("mode detector_only trains no masker: set sr to bicubic, sr_fast, sr_quality or hr")
    if config.sr == "hr" and config.mode != "detector_only":
        raise UserError("sr hr trains a detector on HR images: it needs mode detector_only")
    if config.upscale > 1 and config.sr == "hr":
        raise UserError(f"upscale {config.upscale:g} enlarges SR images; leave it at 1 for sr hr")
    if config.start is not None and config.sr in ("bicubic", "hr"):
        raise UserError(f"start names trained SR networks, but sr {config.sr} has none: set start to null")
    if config.mode == "frozen_detector" and not front_is_trained(config):
        raise UserError(
            f"mode frozen_detector with sr {config.sr} and freeze {config.freeze} leaves nothing to train: choose "
            "another sr or mode, or take a part out of freeze"
        )
    _check_freeze(config)
    _check_turns(config)
    _check_terms(config)
    _check_slices(config)
    _check_warm_up(config)
    _check_hr_images(config)
    if config.losses.sparsity == "latency" and None in (config.losses.latency_ms, config.losses.profile):
        raise UserError(
            "losses.sparsity latency needs losses.latency_ms and losses.profile; measure the profile with "
            "`python -m tools.latency --config THIS_YAML --out FILE`"
        )
    budgets = config.masker.budget_dropout
    if budgets is not None and (len(budgets) != 2 or budgets[0] > budgets[1]):
        raise UserError(f"masker.budget_dropout is {budgets}; give [lowest, highest] kept share, or null")
    if not Path(config.data.yaml).is_file():
        raise FileNotFoundError(f"data.yaml: {config.data.yaml!r} does not exist; give the data set's YAML file")
    phases = stage3_phases(config)
    for phase in phases[:-1]:
        try:
            check_stage3(phase.config)
        except UserError as error:
            raise UserError(f"{phase.name}: {error}") from None


def distills(config: Stage3Config) -> bool:
    """Whether a teacher is needed."""
    return config.losses.distill > 0 or config.losses.distill_outputs > 0


def some_get_no_gradient(config: Stage3Config) -> bool:
    """Whether there are steps in which some of the trained weights get no gradient."""
    losses = config.losses
    return losses.hr_share > 0 or losses.alternate or losses.det == 0 or config.data.unlabelled


def front_is_trained(config: Stage3Config) -> bool:
    """Whether anything in front of the detector is trained."""
    if config.mode == "detector_only" or config.sr in ("bicubic", "hr"):
        return False
    if config.sr != "conditional":
        return getattr(config, config.sr).name != "bicubic"
    return not set(FRONT_PARTS) <= set(config.freeze)


def cuts_slices(config: Stage3Config) -> bool:
    """Whether the detector is trained on slices."""
    return config.slices.rows * config.slices.columns > 1


def _check_slices(config: Stage3Config) -> None:
    if not cuts_slices(config):
        return
    if config.mode != "detector_only" or config.sr != "bicubic" or config.upscale != 1:
        raise UserError(
            "slices are of bicubic images, for a detector that is trained alone: set mode to detector_only, sr to "
            "bicubic and upscale to 1, or slices.rows and slices.columns to 1"
        )
    for key in ("rec", "distill", "distill_outputs", "hr_share"):
        if getattr(config.losses, key) > 0:
            raise UserError(f"losses.{key} is of whole images: set it to 0 for slices, which the labels alone teach")
    if config.data.unlabelled:
        raise UserError("data.unlabelled keeps images that slices learn nothing from: set it to false")


def _check_warm_up(config: Stage3Config) -> None:
    warm_up = config.warm_up
    if warm_up.quality_epochs and not (warm_up.epochs and config.sr == "conditional"):
        raise UserError(
            "warm_up.quality_epochs is what SR_Quality gets before masker and SR_Fast learn beside it: it needs sr "
            "conditional and warm_up.epochs above 0; set it to 0"
        )
    if warm_up.quality_epochs and "sr_quality" in config.freeze:
        raise UserError("warm_up.quality_epochs trains SR_Quality, which freeze names: set one of them back")
    if not warm_up.epochs:
        return
    if config.sr in ("bicubic", "hr"):
        raise UserError(f"warm_up trains SR networks, but sr {config.sr} has none: set warm_up.epochs to 0")
    if config.start is not None:
        raise UserError("start names a front end that was warmed up already: set warm_up.epochs to 0, or start to null")
    if warm_up.distill + warm_up.distill_outputs <= 0:
        raise UserError("warm_up.distill and warm_up.distill_outputs are both 0, so there is nothing to learn from")
    if config.data.lr == "native":
        raise UserError(
            "warm_up needs HR images, but data.lr is native: set warm_up.epochs and warm_up.quality_epochs to 0"
        )


def _check_freeze(config: Stage3Config) -> None:
    freeze = config.freeze
    if freeze and config.sr != "conditional":
        raise UserError(f"freeze names parts of a conditional front end, but sr is {config.sr}: leave it empty")
    if "masker" in freeze and config.masker.shared_stem and "sr_fast" not in freeze:
        raise UserError(
            "freeze holds masker, whose shared_stem would go on learning with sr_fast: freeze sr_fast too, or neither"
        )
    if config.start is None:
        for name in freeze:
            network = None if name == "masker" else getattr(config, name)
            if network is None or (network.name != "bicubic" and network.weights is None and network.init is None):
                where = "start" if network is None else f"start or {name}.weights"
                raise UserError(f"freeze: {name} would stay as it was drawn, untrained: name {where}, or let it learn")


def _check_turns(config: Stage3Config) -> None:
    losses = config.losses
    if not losses.alternate:
        return
    if config.mode != "joint" or not front_is_trained(config):
        raise UserError(
            "losses.alternate lets front end and detector learn in turns, but here only one of them learns (mode "
            f"{config.mode}, sr {config.sr}, freeze {config.freeze}): set it to false"
        )
    if losses.hr_share >= 0.5:
        raise UserError(
            f"losses.hr_share is {losses.hr_share:g}, but with losses.alternate the detector learns in half of the "
            "steps, and in some of them from SR images: set less than 0.5"
        )


def _check_terms(config: Stage3Config) -> None:
    """Whatever is trained needs a loss term, with the labels that there are."""
    losses, data = config.losses, config.data
    trains_front = front_is_trained(config)
    without_labels = distills(config) or (losses.rec > 0 and trains_front)
    if config.mode != "frozen_detector" and losses.det == 0 and not distills(config):
        raise UserError(
            f"mode {config.mode} with losses.det 0 has no loss term that trains the detector: set losses.det, "
            "losses.distill or losses.distill_outputs above 0, or mode to frozen_detector"
        )
    if losses.det == 0 and not without_labels:
        raise UserError(
            "mode frozen_detector with losses.det 0 has nothing to learn from: set losses.distill, "
            "losses.distill_outputs or losses.rec above 0"
        )
    if data.unlabelled and data.label_share < 1 and not without_labels:
        raise UserError(
            "data.unlabelled keeps training images without labels, but no loss term learns from them: set "
            "losses.distill, losses.distill_outputs or (where SR is trained) losses.rec above 0, or data.unlabelled to "
            "false"
        )
    if config.sr == "conditional" and losses.objects > 0 and losses.det == 0 and not distills(config):
        raise UserError(
            "losses.objects with losses.det 0 takes its objects from a teacher: set losses.distill or "
            "losses.distill_outputs above 0, or losses.objects to 0"
        )
    if losses.hr_share > 0 and config.mode == "frozen_detector":
        raise UserError("losses.hr_share trains the detector on HR images, which mode frozen_detector forbids: set 0")
    if losses.alternate and data.unlabelled and not distills(config):
        raise UserError(
            "losses.alternate with data.unlabelled: images without labels teach the detector nothing in its turns "
            "unless losses.distill or losses.distill_outputs is above 0; set one of them, or losses.alternate to false"
        )
    if losses.hr_share > 0 and data.unlabelled and not distills(config):
        raise UserError(
            "losses.hr_share with data.unlabelled: HR images without labels teach the detector nothing unless "
            "losses.distill or losses.distill_outputs is above 0; set one of them, or losses.hr_share to 0"
        )


def _check_hr_images(config: Stage3Config) -> None:
    if config.losses.rec > 0 and (config.sr == "hr" or (config.sr == "bicubic" and config.upscale > 1)):
        raise UserError(
            "losses.rec compares SR with HR images; set it to 0 for sr hr, and for sr bicubic with upscale above 1"
        )
    if config.upscale > 1 and (distills(config) or config.losses.hr_share > 0):
        raise UserError(
            "losses.distill, distill_outputs and hr_share are of images of one size; set them to 0 for upscale above 1"
        )
    if config.data.lr != "native":
        return
    if config.sr == "hr":
        raise UserError("sr hr needs HR images, but data.lr is native: choose another sr")
    for key in ("rec", "distill", "distill_outputs", "hr_share"):
        if getattr(config.losses, key) > 0:
            raise UserError(f"losses.{key} needs HR images, but data.lr is native: set losses.{key} to 0")
