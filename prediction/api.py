"""The Python API: one object that holds a system, and takes whatever people have as images.

    from prediction.api import ConditionalYOLO

    model = ConditionalYOLO("conditional_sr_yolo_jointly_tuned.pth")  # or detector="yolo11n.pt", without any training
    for result in model.predict("images/", policy="budget=0.25", stream=True):
        print(result.path, result.boxes.xyxy, result.kept_share)

Import it before Ultralytics, which would otherwise look for a network. Nothing is written to inputs, and images do not
depend on each other: a batch gives what single images give.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Literal, cast

import numpy as np
from torch import Tensor

from deployment.latency_profile import with_profile
from deployment.prepare import how_it_runs
from loading.assembled_system import assemble_system, load_ready_front
from loading.checkpoints import checkpoint_kind, load_front
from loading.deployed_detector import holds_detector
from loading.shipped_weights import SHIPPED
from loading.systems import load_system, with_halo
from models.mask_policy import POLICIES, WITH_MASKER, WITH_VALUE, MaskPolicy, parse_policy
from models.patch_reuse import ReuseOptions
from models.sr_network import SRNetwork
from prediction.image_input import MAX_PIXELS, one_image, open_source, without_skipped
from prediction.predictor import PredictOptions, Predictor
from prediction.results import ConditionalResults
from prediction.stage_times import StageTimes
from prediction.super_resolver import SuperResolver, image_features
from utils.checkpoint import CheckpointError
from utils.device import choose_device, compute_type
from utils.errors import UserError

DEVICES = ("auto", "cpu", "cuda")
DEFAULT_POLICY = "budget=0.25"
LEAST_MEMORY_MB = 16  # as inference.py


class ConditionalYOLO:
    """A system ready to predict: LR images of any kind in, boxes in their own pixels out.

    Args:
        weights: checkpoint of stage 3, with a masker or without; or of an SR network alone, which only has `upscale`:
            what `load_sr` reads, or `shipped` for the strongest of the project's own weights for `scale`. None where
            `detector` is given.
        device: auto, cpu or cuda; auto picks CUDA when there is one.
        half: compute in 16 bit (fp16 on CUDA, bf16 on CPU).
        detector: instead of `weights`: a deployed detector as it is, behind SR networks as they are, without training:
            Ultralytics .pt, state dict, or checkpoint of stage 1.
        sr: before `detector`: `shipped` (SR_Fast, and SR_Quality where the policy says), FAST,QUALITY, or one network:
            a weight file, the name of a shipped one (edsr_8x32) or of a network (bicubic); see `load_ready_front`.
        detector_model: model YAML of a state dict as `detector`; None recognises it.
        scale: factor of an SR network alone, or before `detector`; None takes its own, and x4 of the shipped ones.
        halo: LR pixels of neighbours around SR_Quality's patches, exact: the receptive field; None takes that of the
            checkpoint.
        profile: latency profile of this system on this device (python -m tools.latency), for the policy latency_ms.
        memory_mb: about what one image may take; larger ones run in overlapping parts, see docs/large_images.md.
        seed: of the noise that diffusion networks draw; the same seed gives the same image.
        backend: what computes a system on CPUs: native, torch, openvino or auto, see deployment/prepare.py.

    Raises:
        UserError: weights, profile or device that cannot be used, or options that these weights do not have.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        device: str = "auto",
        half: bool = False,
        *,
        detector: str | Path | None = None,
        sr: str | Path | None = None,
        detector_model: str | None = None,
        scale: float | None = None,
        halo: int | Literal["exact"] | None = None,
        profile: str | Path | None = None,
        memory_mb: int = 1024,
        seed: int = 0,
        backend: str = "native",
    ):
        if device not in DEVICES:
            raise UserError(
                f"device is {device!r}; give auto, cpu or cuda (CUDA_VISIBLE_DEVICES chooses among several)"
            )
        if memory_mb < LEAST_MEMORY_MB:
            raise UserError(f"memory_mb is {memory_mb}; give {LEAST_MEMORY_MB} or more")
        self._has_profile, self._masker_trained = profile is not None, True
        self._predictor: Predictor | None = None
        self._resolver: SuperResolver | None = None
        self._assembled: tuple[str, float | None] | None = None  # SR networks before a deployed detector, and scale
        if detector is not None:
            if weights is not None or profile is not None:
                raise UserError("detector stands instead of weights, and no latency profile fits it; leave those out")
            self.weights, place = str(detector), choose_device(device)
            self._assembled = (str(SHIPPED if sr is None else sr), scale)
            ready = assemble_system(detector, *self._assembled, detector_model)
            self._masker_trained = ready.masker_trained
            system = with_halo(self.weights, ready.system, halo).with_seed(seed)
            self._predictor = Predictor(system, place, half, memory_mb, backend)
            return
        if weights is None or sr is not None or detector_model is not None:
            raise UserError("give weights; or detector, and only with it sr and detector_model")
        self.weights = str(weights)
        kind = None if weights == SHIPPED else checkpoint_kind(weights)
        alone = f"{weights}: a detector alone; give it as detector (--detector), or a checkpoint of stage 3 as weights"
        if kind == "detector":
            raise UserError(alone)
        if kind != "system":
            try:
                self._resolver = SuperResolver(weights, scale, device, half, seed=seed, memory_mb=memory_mb)
            except CheckpointError:
                if weights != SHIPPED and holds_detector(weights):
                    raise UserError(alone) from None
                raise
            if halo is not None or profile is not None:
                raise UserError(f"{weights}: an SR network alone has no patches; leave out halo and profile")
            return
        system, place = load_system(weights), choose_device(device)
        if system.patch is None and (halo is not None or profile is not None):
            raise UserError(f"{weights}: this system has no masker; leave out halo and profile")
        if halo is not None:
            system = with_halo(weights, system, halo)
        if profile is not None:
            system = with_profile(system, profile, place, compute_type(place, half))
        self._predictor = Predictor(system.with_seed(seed), place, half, memory_mb, backend)
        if scale not in (None, self.scale):
            raise UserError(f"{weights}: this system is for x{self.scale}, not x{scale:g}; leave scale out")

    @property
    def predictor(self) -> Predictor:
        """What predicts. Raises UserError where the weights hold an SR network alone."""
        if self._predictor is None:
            raise UserError(
                f"{self.weights}: holds an SR network alone, no detector; use upscale (inference.py --sr-only), or"
                " give a checkpoint of stage 3"
            )
        return self._predictor

    @property
    def names(self) -> dict[int, str]:
        """Class names by index. Raises UserError where there is no detector."""
        return dict(enumerate(self.predictor.system.detector.names))

    @property
    def scale(self) -> float:
        """Pixels of the super-resolved image per pixel of the image."""
        return self._resolver.scale if self._resolver else self.predictor.system.front.scale

    @property
    def conditional(self) -> bool:
        """Whether SR_Quality runs on chosen patches, so that mask policies apply."""
        return self._predictor is not None and self._predictor.system.patch is not None

    @property
    def has_masker(self) -> bool:
        """Whether there is a masker that was trained, so that those mask policies apply which ask it."""
        return self.conditional and self._masker_trained

    @property
    def how(self) -> str:
        """How the parts of the system run on this device, in one line."""
        return how_it_runs(self.predictor.system)

    def policies(self) -> dict[str, str]:
        """Mask policies of this system: form, such as budget=R -> meaning; empty where no patches are chosen."""
        if not self.conditional:
            return {}
        known = {kind: meaning for kind, meaning in POLICIES.items() if kind != "latency_ms" or self._has_profile}
        if not self._masker_trained:
            known = {kind: meaning for kind, meaning in known.items() if kind not in WITH_MASKER}
        return {f"{kind}={WITH_VALUE[kind]}" if kind in WITH_VALUE else kind: text for kind, text in known.items()}

    def checked_policy(self, text: str | None) -> MaskPolicy:
        """A policy as users write it, checked against this system; None: a quarter of the patches, if there are any, or
        SR_Fast everywhere where no masker was trained.

        Raises:
            UserError: no valid form, or this system has no masker or no latency profile for it.
        """
        if text is None:
            text = "learned" if not self.conditional else DEFAULT_POLICY if self._masker_trained else "all_fast"
        if not isinstance(text, str):
            raise UserError(f"policy is {text!r}; give it as text, such as 'budget=0.25'")
        policy = parse_policy(text)
        if not self.conditional and policy.kind != "learned":
            raise UserError(f"{self.weights}: this system has no masker; leave out policy {policy}")
        if self.conditional and policy.needs_masker and not self._masker_trained:
            raise UserError(
                f"policy {policy} asks a masker, and none was trained for this detector and these SR networks; take "
                "all_fast, all_quality, random=R or edge=R, or train a front end with adapt.py"
            )
        if policy.kind == "latency_ms" and not self._has_profile:
            raise UserError(
                f"policy {policy} needs a latency profile; measure one with `python -m tools.latency` and name it with "
                "--profile"
            )
        return policy

    def checked_classes(self, classes: int | Sequence[int] | None) -> tuple[int, ...] | None:
        """Indices of classes as `PredictOptions` takes them. Raises UserError where this detector has no such class."""
        if classes is None:
            return None
        chosen = (classes,) if isinstance(classes, int) else tuple(classes)
        wrong = [index for index in chosen if index not in self.names]
        if wrong:
            known = ", ".join(f"{index} {name}" for index, name in self.names.items())
            raise UserError(f"classes: {self.weights} has no class {wrong[0]!r}; it has {known}")
        return chosen

    def predict(
        self,
        source,
        policy: str | None = None,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        classes: int | Sequence[int] | None = None,
        agnostic_nms: bool = False,
        reuse: ReuseOptions | None = None,
        batch: int = 1,
        stream: bool = False,
        channels: str | None = None,
        on_bad_image: str = "error",
        max_pixels: int = MAX_PIXELS,
        times: StageTimes | None = None,
        vid_stride: int = 1,
    ) -> list[ConditionalResults] | Iterator[ConditionalResults]:
        """Detect objects.

        Args:
            source: path of an image, folder, glob or video, Pillow image, NumPy array, tensor, or a list or iterator of
                these; shapes, types and ranges: see `open_source`.
            policy: where SR_Quality runs, one of `policies()`; None: see `checked_policy`.
            conf: lowest score.
            iou: overlap above which non-maximum suppression drops the weaker of two boxes of a class.
            max_det: most detections per image.
            classes: index of the only class that is kept, or several; None keeps all.
            agnostic_nms: a box drops weaker ones of other classes too.
            reuse: patches of a video that did not change keep their SR, see models/patch_reuse.py; None: none do.
            batch: most images per call of the networks; only neighbours of about one size share a call.
            stream: give an iterator that makes one result at a time instead of a list, which holds all images: for
                videos and large folders.
            channels: rgb or bgr, the order of colours in NumPy arrays; has no default, as OpenCV has the one and Pillow
                the other, and a wrong one costs accuracy unnoticed.
            on_bad_image: files that cannot be read raise an error, or are left out with a warning (skip).
            max_pixels: largest height x width accepted of files, judged before decoding.
            times: the stages reading, SR and detection are added, for which the device is waited for between them.
            vid_stride: of videos and streams only every so many frames, from the first on.

        Returns:
            One result per image or video frame, in order.

        Raises:
            UserError: a source or an option that cannot be used; memory that does not suffice.
        """
        predictor = self.predictor
        kept = self.checked_classes(classes)
        options = PredictOptions(self.checked_policy(policy), conf, iou, max_det, kept, agnostic_nms)
        for name, number in (("batch", batch), ("vid_stride", vid_stride)):
            if not isinstance(number, Integral) or number < 1:
                raise UserError(f"{name} is {number!r}; give a whole number, 1 or more")
        memory = None if reuse is None else predictor.reuse(reuse)
        items = predictor.stream(open_source(source, channels, max_pixels, vid_stride), options, batch, times, memory)
        found = without_skipped(items, on_bad_image)
        results = (ConditionalResults(frame, prediction, self.names) for frame, prediction in found)
        return results if stream else _collected(results)

    __call__ = predict

    def upscale(
        self,
        source,
        policy: str | None = None,
        scale: float | None = None,
        stream: bool = False,
        channels: str | None = None,
        on_bad_image: str = "error",
        max_pixels: int = MAX_PIXELS,
    ) -> list[np.ndarray] | Iterator[np.ndarray]:
        """Super-resolve without detecting.

        Args:
            source, stream, channels, on_bad_image, max_pixels: see `predict`.
            policy: as in `predict`.
            scale: factor of an SR network alone, any for arbitrary-scale networks; None takes `self.scale`.

        Returns:
            Per image uint8 (round(s * H), round(s * W), 3) RGB, whatever order of colours the input had.

        Raises:
            UserError: a source or an option that cannot be used, or NaN in the result.
        """
        if self._resolver is not None:
            self.checked_policy(policy)
            return self._resolver.upscale(source, scale, channels, stream, on_bad_image, max_pixels)
        predictor, chosen = self.predictor, self.checked_policy(policy)
        if scale not in (None, self.scale):
            raise UserError(f"{self.weights}: this system is for x{self.scale}, not x{scale:g}; leave scale out")
        frames = without_skipped(open_source(source, channels, max_pixels), on_bad_image)
        images = (predictor.super_resolve(frame.image, chosen) for frame in frames)
        return images if stream else list(images)

    def features(
        self,
        source,
        part: Literal["sr_fast", "sr_quality"] | None = None,
        channels: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Tensor:
        """What an SR network knows of one image before it enlarges it, for work of your own.

        Args:
            source, channels, max_pixels: see `predict`; one image.
            part: which network of a system with a masker, sr_fast or sr_quality; None: sr_quality.

        Returns:
            float32 (C, H, W) on the CPU, at the image's own size and in the network's own units; see `feature_maps`.

        Raises:
            UserError: a source that cannot be used or holds several images, a part that these weights do not have, or a
                network without such features (bicubic).
        """
        if self._resolver is not None:
            if part is not None:
                raise UserError(f"{self.weights}: holds an SR network alone; leave out part {part!r}")
            return self._resolver.features(source, channels, max_pixels)
        image = one_image(source, channels, max_pixels)
        network = _named_part(self.weights, self._networks, part)
        return image_features(network.to(self.predictor.device), image, self.predictor.device)

    @cached_property
    def _networks(self) -> dict[str, SRNetwork]:
        """The SR networks as trained: those that predict are fused, and have no such features any more."""
        front = load_ready_front(*self._assembled)[0] if self._assembled else load_front(self.weights)
        networks = front.networks
        return {role: cast(SRNetwork, network) for role, network in networks.items() if role != "masker"}


def _named_part(weights: str, networks: dict[str, SRNetwork], part: str | None) -> SRNetwork:
    """The SR network of a system that is meant, the strongest one unless it is named."""
    if not networks:
        raise UserError(f"{weights}: this system has no SR network, so no features of one")
    if part is None:
        part = "sr_quality" if "sr_quality" in networks else next(iter(networks))
    if part not in networks:
        raise UserError(f"{weights}: this system has no {part!r}; use one of {', '.join(networks)}")
    return networks[part]


def _collected(results: Iterator[ConditionalResults]) -> list[ConditionalResults]:
    """All results, with super-resolved images of 8 bit, a quarter of their size on the device."""
    collected = []
    for result in results:
        result.compact()
        collected.append(result)
        first = len(collected) > 1 and collected[-2].frame_index == 1
        if first and result.frame_index not in (None, 1):
            warnings.warn(
                f"{result.path}: a list holds every frame of a video; with stream=True there is one at a time",
                stacklevel=3,
            )
    return collected
