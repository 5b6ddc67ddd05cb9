"""What stage 3 looks at after an epoch: mAP, kept share, PSNR, and pictures for TensorBoard."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Subset

from configs.stage3_schema import Stage3Config
from data.detection import DetectionDataset
from data.detection_batch import DetectionBatch, collate_detection
from evaluation.detection_eval import detect_split
from models.content import image_patches
from models.mask_policy import parse_policy
from models.masker import OFFSET_GAIN
from models.system import ConditionalSRDetector
from utils.convert import to_uint8
from utils.device import sent
from utils.logger import MetricsLog
from utils.overlay import detection_panel


class Stage3Validation:
    """Callable (epoch, step) -> metrics on the validation split under the learned policy."""

    def __init__(
        self,
        system: ConditionalSRDetector,
        dataset: DetectionDataset,
        config: Stage3Config,
        log: MetricsLog,
        device: torch.device,
    ):
        self.system, self.dataset, self.config, self.log, self.device = system, dataset, config, log, device
        self.policy = parse_policy("learned")

    def loader(self, dataset) -> DataLoader:
        run, optim = self.config.run, self.config.optim
        pinned = self.device.type == "cuda"
        return DataLoader(
            dataset, optim.batch, collate_fn=collate_detection, num_workers=run.workers, pin_memory=pinned
        )

    def predict(self, batch: DetectionBatch):
        run = self.config.run
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(run.precision, torch.float32)
        with torch.no_grad(), torch.autocast(self.device.type, dtype, enabled=run.precision != "fp32"):
            return self.system.predict(self.system.images(batch), self.policy, conf=0.001, content=batch.content)

    def measure(self) -> dict[str, float]:
        """Metrics of the whole validation split."""
        self.system.eval()
        with_psnr = self.config.data.lr != "native" and not self.system.sees_hr
        result = detect_split(self.predict, self.loader(self.dataset), self.device, self.system.patch, with_psnr)
        scores = result.metrics(self.dataset.names)
        metrics = {"val/map50_95": scores["map50_95"], "val/map50": scores["map50"], "val/psnr": result.psnr}
        metrics |= {"val/kept_share": result.kept_share}
        metrics |= {"val/kept_inside": result.kept_inside, "val/kept_outside": result.kept_outside}
        return {name: value for name, value in metrics.items() if value is not None}

    @torch.no_grad()
    def calibrate(self, share: float) -> dict[str, float]:
        """Set the masker's offset so that it keeps this share of the patches of the validation images, padding apart.

        Training reaches the target share in expectation and on its own images; on others, with other backgrounds, the
        decisions drift. Looks at LR images only, at no labels, with the weights that are in place (averaged ones at the
        end of a training).

        Returns:
            The share before, and how far the share of as many other images of the kind is off by chance: one standard
            error, since images, not patches, are drawn independently.
        """
        masker = self.system.front.masker.eval()
        scores: list[torch.Tensor] = []  # of each image
        for batch in self.loader(self.dataset):
            logits = masker(batch.to(self.device).lr)
            score = logits[:, 1] - logits[:, 0]  # (B, gh, gw)
            image = image_patches(batch.content, batch.lr.shape[-2:], masker.patch)
            for row, own in enumerate(score):
                shown = None if image is None else sent(image[row].flatten().nonzero()[:, 0], own.device)
                scores.append(own.flatten() if shown is None else own.flatten()[shown])
        together = torch.cat(scores)
        offset = masker.offset.clone()
        masker.calibrate(together, share)
        moved = OFFSET_GAIN * (masker.offset - offset)
        kept = torch.stack([(own + moved > 0).float().mean() for own in scores if len(own)])
        figures = {"val/kept_share_before_calibration": (together > 0).float().mean().item()}
        error = kept.std().item() / len(kept) ** 0.5 if len(kept) > 1 else None
        return figures | ({} if error is None else {"val/kept_share_error": error})

    def pictures(self, step: int) -> None:
        """LR, mask, SR with boxes of the first validation images, for TensorBoard."""
        count = min(self.config.val_images, len(self.dataset))
        if count == 0:
            return
        for batch in self.loader(Subset(self.dataset, range(count))):
            batch = batch.to(self.device)
            detections, output = self.predict(batch)
            for row in range(len(batch.files)):
                mask = None if output.mask is None else output.mask[row, 0].float().cpu().numpy()
                boxes = detections[row].float().cpu().numpy() * ([self.system.zoom] * 4 + [1, 1])
                picture = detection_panel(
                    to_uint8(batch.lr[row]),
                    to_uint8(output.sr[row]),
                    boxes[boxes[:, 4] > 0.25],
                    self.dataset.names,
                    mask=mask,
                    patch=self.system.patch,
                )
                self.log.images(f"val/{batch.indices[row]}", picture, step)

    def __call__(self, epoch: int, step: int) -> dict[str, float]:
        last = epoch + 1 == self.config.optim.epochs
        if not (last or (epoch + 1) % self.config.val_every == 0):
            return {}
        self.pictures(step)
        return self.measure()
