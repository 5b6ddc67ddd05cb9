"""Stage 3 as configured: data, system, what of it learns, and its task."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from configs.stage3_schema import Stage3Config
from data.data_spec import Record
from data.detection import DetectionDataset, canvas_size
from data.detection_batch import collate_detection
from deployment.latency_profile import architecture_fingerprint, load_profile
from loading.stage3_checks import cuts_slices, distills
from loading.systems import build_system, build_teacher
from models.conditional_cost import fast_share
from models.content import image_cells
from models.sliced_detection import Slicer
from models.system import ConditionalSRDetector
from training.detection_records import Say, read_records
from training.distillation import Distillation
from training.tasks.joint import JointTask
from training.tasks.slices import SlicesTask
from training.training_data import TrainingData
from utils.errors import UserError
from utils.optimizer_utils import freeze_parts


@dataclass(frozen=True)
class JointTraining:
    """What stage 3 trains, and on what.

    Args:
        task: holds the system.
        train: training images.
        val: validation images.
        labelled: number of training images with labels.
    """

    task: JointTask | SlicesTask
    train: DetectionDataset
    val: DetectionDataset
    labelled: int

    def data(self, workers: int) -> TrainingData:
        return TrainingData(self.train, collate_detection, workers)


def build_joint_training(config: Stage3Config, device: torch.device, say: Say = print) -> JointTraining:
    """Everything that stage 3 trains with; the system's first weights depend on run.seed alone.

    Args:
        config: of the stage.
        device: where the teacher goes.
        say: tells what was found.

    Raises:
        UserError: see `scan_split`, `build_system`, `build_teacher` and `cost_target`.
    """
    spec, records = read_records("stage 3", config.data, config.data.unlabelled, say)
    torch.manual_seed(config.run.seed)
    return joint_training(config, build_system(config, spec.names), records, device, say)


def joint_training(
    config: Stage3Config,
    system: ConditionalSRDetector,
    records: dict[str, list[Record]],
    device: torch.device,
    say: Say = print,
) -> JointTraining:
    """The same with a system and images that are there already.

    Args:
        config: of the stage; its data-set YAML and weights are not looked at.
        system: what is trained.
        records: images by split, "train" and "val".
        device, say: as in `build_joint_training`.

    Raises:
        UserError: see `build_teacher` and `cost_target`.
    """
    labelled = sum(record.labelled for record in records["train"])
    system.to(memory_format=torch.channels_last)
    train, val = detection_sets(config, system.detector.names, records, system.detector.stride)
    freeze_parts(system, config.mode, config.freeze)
    system.detector.set_epochs(config.optim.epochs)
    if config.freeze_bn:
        system.detector.freeze_batchnorm()
    task: JointTask | SlicesTask
    if cuts_slices(config):
        slices = config.slices
        slicer = Slicer(config.data.scale, slices.rows, slices.columns, slices.overlap, slices.full)
        task = SlicesTask(system, config.losses, slicer, config.run.seed)
    else:
        task = joint_task(config, system, train, labelled / len(train), device, say)
    return JointTraining(task, train, val, labelled)


def detection_sets(
    config: Stage3Config, names: tuple[str, ...], records: dict[str, list[Record]], stride: int
) -> tuple[DetectionDataset, DetectionDataset]:
    """Training images, augmented, and validation images as they are, on canvases that fit the detector's stride."""
    data = config.data
    shared = {"canvas": canvas_size(data.imgsz, data.scale, stride), "scale": data.scale}
    shared |= {"lr": data.lr, "lr_folder": data.lr_folder, "seed": config.run.seed, "max_pixels": data.max_pixels}
    train = DetectionDataset(records["train"], names, augment=config.augment, epochs=config.optim.epochs, **shared)
    return train, DetectionDataset(records["val"], names, augment=None, epochs=0, **shared)


def joint_task(
    config: Stage3Config,
    system: ConditionalSRDetector,
    train: DetectionDataset,
    label_share: float,
    device: torch.device,
    say: Say,
) -> JointTask:
    """The loss as configured, with the teacher where one is needed."""
    losses = config.losses
    target, fixed_share = cost_target(config, system, train, say)
    distillation = None
    if distills(config):
        teacher = build_teacher(config, system.detector).to(device, memory_format=torch.channels_last)
        distillation = Distillation(teacher, losses.distill, losses.distill_outputs)
    return JointTask(
        system,
        replace(losses, target=target),
        seed=config.run.seed,
        tau=(config.gumbel.start, config.gumbel.end),
        fixed_share=fixed_share,
        budgets=config.masker.budget_dropout,
        distillation=distillation,
        label_share=label_share,
    )


def cost_target(
    config: Stage3Config, system: ConditionalSRDetector, train: DetectionDataset, say: Say = print
) -> tuple[float, float]:
    """Kept share to aim at, and what always runs as a share of the cost of running everything, canvas filled.

    In milliseconds from the latency profile for `sparsity: latency`, else in MACs. Milliseconds buy a number of
    patches; where images of the data set leave a part of the canvas to padding, that is a larger share of theirs.

    Raises:
        UserError: the profile is for another system, or the target cannot be met by any kept share.
    """
    losses, lr_canvas = config.losses, train.lr_canvas
    if config.sr != "conditional":
        return losses.target, 0.0
    if losses.sparsity != "latency":
        return losses.target, fast_share(system.front, *lr_canvas)
    profile = load_profile(losses.profile)
    if profile.system != architecture_fingerprint(system):
        raise UserError(
            f"{losses.profile}: was measured for another architecture; measure it again with `python -m tools.latency "
            "--config THIS_YAML`"
        )
    share = profile.largest_share(losses.latency_ms, *lr_canvas)
    if not 0 < share < 1:
        patches = system.front.masker.grid(*lr_canvas)
        lowest, highest = (profile.total_ms(*lr_canvas, 1, kept) for kept in (1, patches[0] * patches[1]))
        raise UserError(
            f"losses.latency_ms is {losses.latency_ms:g}, but on {profile.environment['device']} images of "
            f"{lr_canvas[1]}x{lr_canvas[0]} LR pixels take {lowest:.1f} ms with one patch and {highest:.1f} ms with all"
            " of them; choose a number between"
        )
    share = min(1.0, share / image_share(train, system.front.patch))
    say(f"stage 3: {losses.latency_ms:g} ms allow a kept share of {share:.3f}")
    return share, profile.sr_share(*lr_canvas)


def image_share(dataset: DetectionDataset, patch: int) -> float:
    """Share of the canvas' patches that hold image, the mean over a data set as it is without augmentation."""
    content = torch.tensor([[dataset.letterbox(index).lr_rectangle(dataset.scale)] for index in range(len(dataset))])
    return image_cells(content, dataset.lr_canvas, patch).double().mean().item()
