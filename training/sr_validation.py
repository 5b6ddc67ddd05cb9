"""What stage 2 looks at after an epoch: PSNR and SSIM on the validation folders, and pictures of some of its images."""

from __future__ import annotations

from pathlib import Path

import cv2
import torch
from torch import nn

from configs.schema import OptimConfig, Stage2Config
from evaluation.sr_eval import benchmark, border_of, validation_sets
from models.arbitrary_scale import super_resolve
from training.best_weights import BestWeights
from utils.atomic_file import replace_file
from utils.convert import to_image, to_tensor
from utils.logger import MetricsLog
from utils.metrics import psnr_y
from utils.overlay import panel
from utils.resize import resize
from utils.timing import spread


class SRValidation:
    """Callable (epoch, step) -> metrics; keeps the best weights so far in ROLE_best.pth.

    Args:
        role: sr_fast or sr_quality.
        network: SR network.
        config: of the stage.
        optim: settings of the network's optimiser.
        folder: run folder.
        device: where the network is.
        scales: that images are made for.
        log: takes the pictures, whose PNG files lie in its folder; None draws none.
    """

    def __init__(
        self,
        role: str,
        network: nn.Module,
        config: Stage2Config,
        optim: OptimConfig,
        folder: Path,
        device: torch.device,
        scales: list[float],
        log: MetricsLog | None = None,
    ):
        self.network, self.config, self.optim, self.device = network, config, optim, device
        self.log = log
        self.sets = validation_sets(config.data.val, scales, config.data.max_pixels, config.data.lr_val)
        meta = {"stage": 2, "role": role, "seed": config.run.seed}
        self.best = BestWeights(folder / f"{role}_best.pth", network, meta)

    def measure(self) -> dict[str, float]:
        return benchmark(self.network, self.sets, self.device)

    @torch.no_grad()
    def draw(self, epoch: int, step: int) -> None:
        """LR (bicubic), SR and HR side by side of images spread over the sets, as pictures/EPOCH_SET_IMAGE.png."""
        if self.log is None:
            return
        images = [(name, scale, *pair) for name, (scale, pairs) in self.sets.items() for pair in pairs]
        for number in spread(len(images), self.config.val_images) if images else ():
            name, scale, title, lr, hr = images[number]
            sr = to_image(super_resolve(self.network, to_tensor(lr, self.device), hr.shape[:2]))
            bicubic, border = resize(lr, *hr.shape[:2]), border_of(scale)
            titles = [f"{what} {psnr_y(x, hr, border):.2f} dB" for what, x in (("bicubic", bicubic), ("SR", sr))]
            picture = panel([bicubic, sr, hr], [*titles, "HR"])
            self.log.images(f"val/{name}/{title}", picture, step)
            content = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
            path = self.log.folder / "pictures" / f"{epoch + 1:04d}_{name}_{title}.png"
            replace_file(path, lambda file, content=content: file.write(content))

    def __call__(self, epoch: int, step: int) -> dict[str, float]:
        last = epoch + 1 == self.optim.epochs
        if not (last or (epoch + 1) % self.config.val_every == 0):
            return {}
        metrics = self.measure()
        self.draw(epoch, step)
        self.best.offer(metrics, epoch, step)
        return metrics
