"""Detect objects in low-resolution images, folders, globs or videos; with --sr-only super-resolve them.

    python inference.py --weights conditional_sr_yolo_jointly_tuned.pth --source images/ --policy budget=0.25 --save-txt
    python inference.py --sr-only --source images/ --out upscaled

Options may also be written as for `yolo predict`: conf=0.3 save_txt=True. Put a glob in quotes. Boxes are in pixels of
the original images. Exit status: 0 all files read, 1 some skipped or results not saved, 2 bad arguments or weights.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

from configs.inference_schema import InferenceConfig
from utils.config import parse_config
from utils.errors import UserError


def translate(argv: list[str]) -> list[str]:
    """`conf=0.3`, as users of `yolo predict` write it -> `--conf=0.3`; the value that follows an option stays."""
    kinds = {field.name: field.type for field in fields(InferenceConfig)}
    result = []
    for token in argv:
        key, equals, _ = token.partition("=")
        before = result[-1] if result else ""
        # With postponed annotations a field's type is its text.
        takes_value = before.startswith("--") and "=" not in before and kinds.get(_plain(before[2:])) != "bool"
        result.append(f"--{token}" if equals and _plain(key) in kinds and not takes_value else token)
    return result


def _plain(option: str) -> str:
    return option.replace("-", "_")


def check(config: InferenceConfig) -> None:
    """Options that must be given.

    Raises:
        ValueError: naming the option, its value and the remedy.
    """
    if not config.weights and not config.sr_only:
        raise UserError("no weights given; name the checkpoint of stage 3 with --weights")
    if not config.sr_only and (config.scale is not None or config.self_ensemble or config.tile or config.cmsr):
        raise UserError("scale, self_ensemble, tile and cmsr belong to --sr-only: add it, or leave them out")
    if config.sr_only and config.halo is not None:
        raise UserError("halo belongs to systems with a masker; with --sr-only it is --tile_halo")
    if config.cmsr and config.tile:
        raise UserError("cmsr and tile exclude each other: CMSR renders whole images; leave one of them out")
    if not Path(config.out).name:
        raise UserError(f"out is {config.out!r}; name a new folder")


def prepare(config: InferenceConfig) -> tuple:
    """Files to read, predictor, and a new run folder; with `sr_only` those of `super_resolve_files`.

    Raises:
        ValueError, OSError, CheckpointError: arguments or weights that cannot be used.
    """

    from data.sources import list_sources
    from deployment.latency_profile import with_profile
    from deployment.prepare import how_it_runs
    from loading.systems import load_system, with_halo
    from models.mask_policy import parse_policy
    from prediction.prediction_writer import new_run_folder
    from prediction.predictor import Predictor
    from utils.device import choose_device, compute_type, set_threads

    check(config)
    if config.sr_only:
        from prediction.sr_folder import prepare_sr

        return prepare_sr(config)
    policy, device = parse_policy(config.policy), choose_device(config.device)
    files = list_sources(config.source)
    system = load_system(config.weights)
    if system.patch is not None:
        system = with_halo(config.weights, system, config.halo)
    elif config.policy != "learned" or config.save_mask or config.halo is not None:
        raise UserError(f"{config.weights}: this system has no masker; leave out --policy, --halo and --save_mask")
    if policy.kind == "latency_ms" and not config.profile:
        raise UserError(
            f"policy {policy} needs a latency profile; measure one with `python -m tools.latency` and name it with "
            "--profile"
        )
    set_threads(config.threads)
    if config.profile:
        system = with_profile(system, config.profile, device, compute_type(device, config.half))
    predictor = Predictor(
        system, policy, device, config.half, config.conf, config.iou, config.max_det, config.memory_mb
    )
    print(how_it_runs(predictor.system))
    return files, predictor, new_run_folder(config.out)


def detect(config: InferenceConfig, files: list, predictor, folder: Path) -> dict:
    """Predict and save, a printed line per image, then a summary.

    Returns:
        Skipped file -> reason.

    Raises:
        OSError: results cannot be saved.
    """
    from data.sources import Skipped, group_frames, read_frames
    from prediction.prediction_writer import PredictionWriter, describe
    from prediction.predictor import StageTimes, predict_groups

    times, skipped, images, objects = StageTimes(predictor.device), {}, 0, 0
    names = predictor.system.detector.names
    frames = read_frames(files, config.max_pixels)
    groups = times.over("reading", group_frames(frames, config.batch, predictor.padded_size))
    with PredictionWriter(folder, files, config, predictor.system.front.scale, names) as writer:
        for item in predict_groups(predictor, groups, times):
            if isinstance(item, Skipped):
                print(f"{item.file.label}: skipped, {item.reason}", flush=True)
                skipped[item.file] = item.reason
                continue
            frame, prediction = item
            with times.measure("saving"):
                writer.write(frame, prediction)
            print(f"{frame.label}: {frame.width}x{frame.height} {describe(prediction, names)}", flush=True)
            images, objects = images + 1, objects + len(prediction.boxes)
    speed = ", ".join(f"{seconds * 1e3 / max(images, 1):.1f}ms {stage}" for stage, seconds in times.seconds.items())
    print(f"\n{len(files)} files, {images} images, {objects} objects, {len(skipped)} files skipped")
    print(f"Speed per image: {speed}")
    print(f"Results saved to {folder}", *([f"({writer.labels} label files)"] if config.save_txt else []))
    return skipped


def main(argv: list[str] | None = None) -> int:
    config = parse_config(InferenceConfig, __doc__, translate(sys.argv[1:] if argv is None else argv))
    from utils.errors import UserError

    try:
        prepared = prepare(config)
    except (UserError, OSError) as error:
        print(f"inference.py: error: {error}", file=sys.stderr)
        return 2
    if config.sr_only:
        from prediction.sr_folder import super_resolve_files as work
    else:
        work = detect
    try:
        skipped = work(config, *prepared)
    except OSError as error:
        print(f"inference.py: error: {error}; what was saved until here is in {prepared[-1]}", file=sys.stderr)
        return 1
    for file, reason in skipped.items():
        print(f"skipped {file.label}: {reason}", file=sys.stderr)
    return 1 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
