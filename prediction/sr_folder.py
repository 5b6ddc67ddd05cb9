"""`inference.py --sr-only`: super-resolve images, folders, globs and videos, and save them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from configs.inference_schema import InferenceConfig
from data.sources import Frame, Skipped, SourceFile, list_sources, read_frames
from loading.cmsr_tables import use_tables
from loading.shipped_weights import strongest_shipped
from prediction.prediction_writer import new_run_folder, output_names
from prediction.predictor import StageTimes
from prediction.sr_inference import Upscaler, load_sr_for, target_size
from prediction.video import VideoFiles
from utils.checkpoint import CheckpointError, load_network
from utils.convert import to_image, to_tensor
from utils.device import choose_device, is_out_of_memory, set_threads

OUT_OF_MEMORY = "out of memory; compute it in tiles (--tile 256), or use --half"


def prepare_sr(config: InferenceConfig) -> tuple[list[SourceFile], nn.Module, Upscaler, Path]:
    """Files to read, network and how to run it, and a new run folder.

    Raises:
        ValueError, OSError, CheckpointError, ConfigError: arguments, weights or tables that cannot be used.
    """
    device = choose_device(config.device)
    files = list_sources(config.source)
    weights = config.weights or str(strongest_shipped(config.scale))
    network = load_weights(weights, config.scale).to(device).eval()
    if config.cmsr:
        network = use_tables(network, config.cmsr)
    set_threads(config.threads)
    precision = "fp32" if not config.half else "fp16" if device.type == "cuda" else "bf16"
    upscaler = Upscaler(device, precision, config.tile, config.tile_halo, config.self_ensemble)
    return files, network, upscaler, new_run_folder(config.out)


def load_weights(path: str, scale: float | None) -> nn.Module:
    """SR network of a weight file.

    Raises:
        ValueError, CheckpointError: see `load_sr_for`; for a stage-3 checkpoint with a word about what to do instead.
    """
    try:
        return load_sr_for(path, scale)
    except CheckpointError as error:
        if is_system(path):
            raise CheckpointError(
                f"{path}: a whole stage-3 system; leave out --sr-only and add --save-sr --save-images false to save "
                "the images that it makes, or give the weights of an SR network"
            ) from error
        raise


def is_system(path: str) -> bool:
    """Whether a file is a stage-3 checkpoint."""
    try:
        return load_network(path)["kind"] == "system"
    except CheckpointError:
        return False


def super_resolve_files(
    config: InferenceConfig, files: list[SourceFile], network: nn.Module, upscaler: Upscaler, folder: Path
) -> dict[SourceFile, str]:
    """Upscale and save, a printed line per image, then a summary. Images become PNG, videos MPEG-4.

    Returns:
        Skipped file -> reason.

    Raises:
        OSError: results cannot be saved.
    """
    times, skipped, images = StageTimes(upscaler.device), {}, 0
    names, videos = output_names(files), VideoFiles()
    try:
        for item in times.over("reading", read_frames(files, config.max_pixels)):
            if isinstance(item, Frame):
                with times.measure("SR"):
                    sr = upscale_frame(item, network, upscaler, config.scale)
                item = Skipped(item.file, sr) if isinstance(sr, str) else item
            if isinstance(item, Skipped):
                print(f"{item.file.label}: skipped, {item.reason}", flush=True)
                skipped[item.file] = item.reason
                continue
            with times.measure("saving"):
                save(item, sr, folder / names[item.file], videos)
            print(f"{item.label}: {item.width}x{item.height} -> {sr.shape[1]}x{sr.shape[0]}", flush=True)
            images += 1
    finally:
        videos.close()
    speed = ", ".join(f"{seconds * 1e3 / max(images, 1):.1f}ms {stage}" for stage, seconds in times.seconds.items())
    print(f"\n{len(files)} files, {images} images, {len(skipped)} files skipped")
    print(f"Speed per image: {speed}")
    print(f"Results saved to {folder}")
    return skipped


def upscale_frame(frame: Frame, network: nn.Module, upscaler: Upscaler, scale: float | None) -> np.ndarray | str:
    """SR image of a frame, uint8 (H, W, 3), or why there is none (memory, NaN, a size without tiles)."""
    size = target_size(network, frame.height, frame.width, scale)
    try:
        return to_image(upscaler(network, to_tensor(frame.image, upscaler.device), size))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return OUT_OF_MEMORY
    except ValueError as error:
        return str(error)


def save(frame: Frame, sr, path: Path, videos: VideoFiles) -> None:
    """Save an image as `path`.png, a frame of a video as the next of `path`.mp4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if frame.index is None:
        Image.fromarray(sr).save(path.with_name(f"{path.name}.png"), compress_level=1)
    else:
        videos.write(path.with_name(f"{path.name}.mp4"), sr, frame.fps, "take its frames as images")
