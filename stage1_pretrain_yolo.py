"""Stage 1: train the detector on high-resolution images with Ultralytics' trainer (AdamW).

    python stage1_pretrain_yolo.py --config configs/stage1_yolo_pretrain.yaml

Writes yolo_pretrained_hr.pth (moving-average weights of the best epoch) into the run folder. `--run.resume` goes on
after the last finished epoch; as Ultralytics keeps 16-bit averages for that, the result differs a little from an
unbroken run. With another `--epochs` it goes on as a run of that length would.
"""

from __future__ import annotations

from pathlib import Path

from configs.schema import Stage1Config
from utils.cli import run
from utils.config import parse_config
from utils.errors import UserError

OUTPUT = "yolo_pretrained_hr.pth"


def training_arguments(config: Stage1Config, data: Path, folder: Path, device: str) -> dict:
    """What Ultralytics' trainer is told; everything else keeps its default."""
    augment, imgsz = config.augment, config.data.imgsz
    return {
        "data": str(data),
        "save_dir": str(folder),
        "imgsz": imgsz if isinstance(imgsz, int) else max(imgsz),
        "epochs": config.epochs,
        "batch": config.batch,
        "nbs": config.batch,  # one optimiser step per batch
        "optimizer": "AdamW",
        "lr0": config.lr,
        "lrf": 0.05,
        "warmup_epochs": config.warmup_epochs,
        "warmup_bias_lr": 0.0,
        "patience": config.patience,
        "seed": config.run.seed,
        "deterministic": True,
        "device": device,
        "pretrained": False,
        "amp": False,
        "plots": False,
        "mosaic": augment.mosaic,
        "close_mosaic": augment.close_mosaic,
        "scale": augment.scale,
        "translate": augment.translate,
        "fliplr": augment.flip_lr,
        "flipud": augment.flip_ud,
        "hsv_h": augment.hsv_h,
        "hsv_s": augment.hsv_s,
        "hsv_v": augment.hsv_v,
    }


def check_stage1(config: Stage1Config) -> None:
    """Raises ValueError for settings that stage 1 cannot run with."""
    sides = [config.data.imgsz] if isinstance(config.data.imgsz, int) else config.data.imgsz
    if len(sides) not in (1, 2) or any(side < 32 or side % 32 for side in sides):
        raise UserError(f"data.imgsz is {config.data.imgsz}; expected one side or [height, width], multiples of 32")
    if config.data.unlabelled:
        raise UserError("data.unlabelled: stage 1 learns from labels only; set it to false (stage 3 can use true)")
    if config.data.lr == "native":
        raise UserError(
            "data.lr is native: stage 1 needs HR images; use a detector trained elsewhere via detector.weights of "
            "stage 3, or set data.lr to bicubic if the images of data.yaml are HR"
        )


def pick_device(config: Stage1Config) -> str:
    """Ultralytics' name of the device. Raises UserError where the machine lacks it, or it lacks the precision."""
    from utils.device import check_precision, choose_device

    device = choose_device(config.run.device, "run.device")
    check_precision(config.run.precision, device, "run.precision")
    return "0" if device.type == "cuda" else "cpu"


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage1Config, __doc__, argv)
    check_stage1(config)

    import torch

    from data.detection_view import build_view
    from loading.detector_weights import load_detector
    from training.detection_records import read_records
    from training.result import finished_epochs, in_words, is_finished
    from training.run_start import start_run
    from training.yolo_training import take_best
    from utils.checkpoint import save_network

    # 1. Run folder, data
    device, data = pick_device(config), config.data
    folder = start_run(config, extends={"epochs": finished_epochs(Path(config.run.out) / OUTPUT)})
    output, training = folder / OUTPUT, (folder / "ultralytics").absolute()
    if is_finished(output, config.epochs):
        print(f"stage 1: already finished, {output}")
        return 0
    spec, records = read_records("stage 1", data, keep_unlabelled=False)
    view = build_view(folder / "view", spec.names, records)

    # 2. Detector
    torch.manual_seed(config.run.seed)
    detector, taken = load_detector(config.detector.model, config.detector.weights, spec.names)
    print(f"detector {config.detector.model}: {taken}")

    # 3. Training
    epochs = train(detector, config, folder, training_arguments(config, view, training, device))

    # 4. Result
    metrics = take_best(detector, training / "weights" / "best.pt")
    meta = {"stage": 1, "metrics": metrics, "epochs": epochs, "imgsz": data.imgsz, "seed": config.run.seed}
    meta |= {"data": Path(data.yaml).name, "labelled_images": len(records["train"])}
    save_network(output, "detector", detector.spec["name"], detector.spec["args"], detector.state_dict(), meta)
    print(f"stage 1: {output}  {in_words(metrics)}")
    return 0


def train(detector, config: Stage1Config, folder: Path, arguments: dict) -> int:
    """Train the detector in place, from the last finished epoch on.

    Args:
        detector: YoloDetector.
        config: of the stage.
        folder: run folder, for the log.
        arguments: of Ultralytics' trainer.

    Returns:
        Epochs that it was trained for in all, or would have been without early stopping.
    """
    import torch

    from training.yolo_training import HRDetectionTrainer, epochs_done
    from utils.logger import MetricsLog

    last = Path(arguments["save_dir"]) / "weights" / "last.pt"
    done = epochs_done(last)
    log = MetricsLog(folder)
    log.resume_from(done)
    if done < config.epochs:
        trainer = HRDetectionTrainer(
            detector,
            arguments | ({"resume": str(last)} if done else {}),
            config.run.precision,
            config.run.threads or torch.get_num_threads(),
            config.run.workers,
            on_epoch=lambda epoch, metrics: log.scalars({"epoch": epoch, **metrics}, epoch),
        )
        trainer.train()
    return max(done, config.epochs)


if __name__ == "__main__":
    run(main)
