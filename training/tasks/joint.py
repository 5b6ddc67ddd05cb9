"""Masker, SR networks and detector learn together, or those of them that are not frozen (stage 3)."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, cat

from configs.schema import OptimConfig
from configs.stage3_schema import LossConfig
from models.content import image_cells, image_patches
from models.detector_input import shares_of
from models.detector_output import select_images
from models.front_end import ConditionalOutput
from models.object_patches import detected_centres, objects_per_patch
from models.system import ConditionalSRDetector
from models.tiling.run_patches import expand_mask
from training.distillation import Distillation
from training.task import MAIN, OptimizerSpec, Progress, Task, frozen
from training.tasks.joint_turns import turn_of
from utils.device import sent
from utils.gumbel import gumbel_noise, random_shares, temperature
from utils.losses import mean_over, object_ranking, reconstruction, smoothness, sparsity_flops, sparsity_mean
from utils.optimizer_utils import stage3_groups

SURE = 0.25  # score from which a teacher's detection counts as an object


class JointTask(Task):
    """L = w_det L_det + w_sparse L_sparsity + w_smooth L_smooth + w_objects L_objects + w_rec L1(SR, HR) + L_distill.

    Labels are looked at only where w_det > 0. L_det is a mean over the labelled images of a batch, weighted so that
    each of them counts the same whatever batch it is in. L_objects takes the boxes of labelled images, and what the
    teacher finds in the HR image of the others; without a teacher these take no part. In a step that shows the detector
    HR images, L is what the detector alone has of it. With `alternate` front end and detector learn in turns, each from
    the terms that reach it, in the manner of SR4IR (Kim et al. 2024, arXiv:2404.01692), which makes both steps on the
    same batch, however; HR images then come in the detector's.

    Padding (models/content.py) is left out of all that looks at patches or compares pixels: the terms sparse, smooth,
    objects and rec, and the logged shares. The detector's terms, distillation included, are of the whole canvas, which
    is what a detector gets to see.

    Args:
        system: front end and detector.
        weights: of the loss terms, and their forms; `target` is the kept share to aim at, whatever it comes from.
        seed: of the Gumbel noise and of the budgets, which are pure functions of (seed, epoch, sample index).
        tau: temperature at the first and at the last step.
        fixed_share: cost of SR_Fast and Masker as a share of the cost with SR_Quality everywhere, in MACs or in
            milliseconds, for `sparsity: flops` and `latency`.
        budgets: lowest and highest kept share that is drawn for an image; None leaves the share to the masker.
        distillation: the detector's distance from a teacher that sees the HR images; None leaves it out.
        label_share: share of the training images that have labels.
    """

    on_bar = ("det", "distill", "distill_outputs")  # what the detector has of it; the other terms are of the masks

    def __init__(
        self,
        system: ConditionalSRDetector,
        weights: LossConfig,
        seed: int = 0,
        tau: tuple[float, float] = (5.0, 0.1),
        fixed_share: float = 0.0,
        budgets: tuple[float, float] | None = None,
        distillation: Distillation | None = None,
        label_share: float = 1.0,
    ):
        super().__init__()
        self.system = system
        self.weights = weights
        self.seed = seed
        self.tau = tau
        self.fixed_share = fixed_share
        self.budgets = budgets
        self.distillation = distillation
        self.label_share = label_share

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        """One for all: in turns it updates what has gradients."""
        return {MAIN: OptimizerSpec(stage3_groups(self.system, optim), optim)}

    def start_epoch(self, epoch: int) -> None:
        self.system.detector.set_epoch(epoch)

    def target_share(self, progress: Progress) -> float:
        """Kept share to aim at now: from a half, as coins fall, to `target` over the first `ramp` of the training."""
        done = min(1.0, progress.step / max(1.0, self.weights.ramp * progress.total_steps))
        return 0.5 + (self.weights.target - 0.5) * done

    def losses(self, batch, progress: Progress) -> dict[str, Tensor]:
        teacher_output, system = self.teacher_output(batch), self.system
        turn, hr_step = turn_of(progress.step, self.weights.hr_share, self.weights.alternate)
        if hr_step:
            total, losses = self.detector_terms(batch.hr, batch, teacher_output)
            return {"total": total} | {f"hr_{name}": value for name, value in losses.items()}
        with frozen(system.front.parameters()) if turn == "detector" else nullcontext():
            sr, front_total, front_losses = self.front_terms(batch, progress, teacher_output)
        with frozen(system.detector.parameters()) if turn == "front" else nullcontext():
            total, losses = self.detector_terms(system.shown(sr), batch, teacher_output)
        return {"total": front_total + total} | front_losses | losses

    def teacher_output(self, batch) -> dict | None:
        """What the teacher makes of the HR images; None without one."""
        return None if self.distillation is None else self.distillation.target(batch.hr)

    def front_terms(
        self, batch, progress: Progress, teacher_output: dict | None
    ) -> tuple[Tensor, Tensor | float, dict[str, Tensor]]:
        """SR images (B, 3, H, W), and the loss terms that do not need the detector; see `teacher_output`."""
        front, total, losses = self.system.front, 0.0, {}
        if front.patch is not None:
            output, tau = self.draw(batch, progress)
            sr = output.sr
            total, losses = self.mask_terms(output, batch, progress, teacher_output)
            losses["tau"] = torch.full_like(total, tau)
        else:
            sr = front(self.system.images(batch)).sr
        if self.weights.rec > 0:
            rec = reconstruction(sr.float(), batch.hr, self.image_pixels(batch))
            total = total + self.weights.rec * rec
            losses["rec"] = rec.detach()
        return sr, total, losses

    def mask_terms(
        self, output: ConditionalOutput, batch, progress: Progress, teacher_output: dict | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss terms of the masks, and what they keep; see `teacher_output`."""
        w = self.weights
        image = image_patches(batch.content, batch.lr.shape[-2:], self.system.front.patch)
        image = None if image is None else sent(image[:, None], output.sr.device)
        # The expected mask instead of the drawn one: the same mean without the noise.
        kept = sparsity_mean(output.probability, image)
        if w.sparsity == "mean":
            sparse = kept
        else:
            sparse = sparsity_flops(output.probability, self.target_share(progress), self.fixed_share, image)
        smooth = smoothness(output.probability, image)
        total = w.sparse * sparse + w.smooth * smooth
        losses = {"sparse": sparse.detach(), "smooth": smooth.detach(), "expected_share": kept.detach()}
        losses["kept_share"] = mean_over(output.mask.detach(), image)
        if w.objects > 0:
            known = slice(None)
            if teacher_output is None and w.det > 0 and not batch.labelled.all():
                known = sent(batch.labelled.nonzero()[:, 0], output.score.device)
            shown = None if image is None else image[known]
            ranking = object_ranking(output.score[known], self.objects(batch, teacher_output)[known], shown)
            total = total + w.objects * ranking
            losses["objects"] = ranking.detach()
        return total, losses

    def image_pixels(self, batch) -> Tensor | None:
        """Bool (B, 1, H, W), true at the pixels of the HR canvas that hold image; None where all do."""
        if batch.content is None:
            return None
        (height, width), scale = batch.lr.shape[-2:], batch.hr.shape[-1] // batch.lr.shape[-1]
        pixels = sent(image_cells(batch.content, (height, width), 1), batch.hr.device)
        return expand_mask(pixels, scale, height * scale, width * scale)

    def objects(self, batch, teacher_output: dict | None) -> Tensor:
        """Objects per patch (B, 1, gh, gw): labels where they may be looked at, else what the teacher found."""
        labelled = batch.labelled & (self.weights.det > 0)
        centres, image_index = batch.boxes[:, :2], batch.image_index
        if self.weights.det == 0:
            centres, image_index = centres[:0], image_index[:0]
        if teacher_output is not None and not labelled.all():
            found = self.distillation.teacher.boxes(teacher_output, batch.canvas, conf=SURE)
            found = [boxes[:0] if known else boxes for boxes, known in zip(found, labelled.tolist())]
            more, images = detected_centres(found, batch.canvas)
            centres, image_index = cat([centres, more]), cat([image_index, images])
        masker, size = self.system.front.masker, batch.lr.shape[-2:]
        return objects_per_patch(centres, image_index, len(batch.lr), size, masker.patch, masker.grid(*size))

    def draw(self, batch, progress: Progress) -> tuple[ConditionalOutput, float]:
        """The front end's output with the noise and budgets of these samples, and the temperature."""
        front = self.system.front
        tau = temperature(progress.step, progress.total_steps, *self.tau)
        grid = front.masker.grid(*batch.lr.shape[-2:])
        noise = sent(gumbel_noise(batch.indices, batch.epoch, self.seed, grid), batch.lr.device)
        shares = None
        if self.budgets is not None:
            shares = sent(random_shares(batch.indices, batch.epoch, self.seed, self.budgets), batch.lr.device)
        return front(batch.lr, tau, noise, shares, batch.content), tau

    def detector_terms(
        self, images: Tensor, batch, teacher_output: dict | None
    ) -> tuple[Tensor | float, dict[str, Tensor]]:
        """Loss terms of the detector on SR or HR images (B, 3, H, W); see `teacher_output`."""
        w, losses = self.weights, {}
        total = 0.0
        raw = None if self.distillation is None else self.system.detector.raw(images, one2one=w.det > 0)
        if w.det > 0:
            detection = self.detection(images, batch, raw)
            total = total + w.det * detection["det"]
            losses |= {name: value.detach() for name, value in detection.items()}
        if self.distillation is not None:
            distance, terms = self.distillation(raw, teacher_output)
            total = total + distance
            losses |= terms
        return total, losses

    def detection(self, images: Tensor, batch, raw: dict | None) -> dict[str, Tensor]:
        """Detection loss on the images whose labels are known; `raw` is the detector's output for all of them."""
        detector, labelled = self.system.detector, batch.labelled
        boxes = self.targets(images, batch)
        if not labelled.any():
            return dict.fromkeys(("det", "box", "cls", "dfl"), images.new_zeros(()))
        image_index = batch.image_index
        if not labelled.all():
            rows = sent(labelled.nonzero()[:, 0], images.device)
            images, raw = images[rows], None if raw is None else select_images(raw, rows)
            image_index = sent(labelled.cumsum(0) - 1, image_index.device)[image_index]
        losses = detector.loss(images, boxes, batch.classes, image_index, raw)
        # Else an image would weigh the more, the fewer labelled ones its batch has.
        weight = labelled.float().mean().item() / self.label_share
        return {name: weight * value for name, value in losses.items()}

    def targets(self, images: Tensor, batch) -> Tensor:
        """Boxes of the batch as shares of the detector's images (B, 3, H, W), which may be filled up with grey."""
        factor = self.system.zoom * self.system.upscale
        if factor == 1:
            return batch.boxes
        height, width = batch.canvas
        return shares_of(batch.boxes, (height * factor, width * factor), images.shape)
