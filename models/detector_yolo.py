"""Any Ultralytics detection model as a plain module: differentiable loss, deterministic predict.

Ultralytics (AGPL-3.0) is imported here, for training in `training/yolo_training.py`, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import torchvision  # noqa: F401  Ultralytics' NMS uses torchvision's operator only where torchvision is imported already
import yaml
from torch import Tensor, nn

from models.detector_layers import check_layers
from models.detector_output import float32
from models.device_constants import device_constant
from models.ultralytics_offline import INTEGRATIONS, offline_ultralytics
from utils.errors import UserError
from utils.yaml_strict import load_yaml

with offline_ultralytics():
    import ultralytics
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.modules.head import Detect, v10Detect
    from ultralytics.nn.tasks import DetectionModel, guess_model_scale, torch_safe_load
    from ultralytics.utils import ONLINE, SAFE_LOAD, SETTINGS
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.tal import make_anchors

if ONLINE or not SAFE_LOAD:
    raise RuntimeError(
        "ultralytics was imported before models.detector_yolo: import models.detector_yolo first, "
        "so that downloads and unsafe pickles are switched off"
    )
dict.update(SETTINGS, dict.fromkeys(INTEGRATIONS, False))  # in memory only: SETTINGS.update would write the file

SHIPPED = Path(ultralytics.__file__).parent / "cfg"  # Ultralytics' own YAML files: models/, datasets/
MOST_GRIDS = 32  # image sizes whose anchors are kept


def model_yaml(model: str | dict) -> dict:
    """Model description as a dictionary from a name (yolo11n.yaml, yolov5nu.yaml), an own YAML file or a dictionary.

    Raises:
        UserError: no such YAML, a damaged one, or it describes no detection model, see `check_layers`.
    """
    if isinstance(model, dict):
        spec = deepcopy(model)
    else:
        name = re.sub(r"^(yolov[35][nslmx]?(?:-p6)?)u\.yaml$", r"\1.yaml", Path(model).name)
        unified = re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", Path(name).stem) + ".yaml"
        shipped = {p.name: p for p in sorted((SHIPPED / "models").rglob("*.yaml"))}
        own = [p for p in (Path(model), Path(model).with_name(unified)) if p.suffix == ".yaml" and p.is_file()]
        file = own[0] if own else shipped.get(name, shipped.get(unified))
        if file is None:
            close = get_close_matches(name, [*shipped, "yolov5n.yaml", "yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml"])
            raise UserError(
                f"detector.model: no model YAML named {model!r} (nearest: {', '.join(close) or 'none'}); give an "
                "Ultralytics name such as yolo11n.yaml, a YAML file or a .pt file"
            )
        spec = load_yaml(file) if own else yaml.safe_load(file.read_text(encoding="utf-8"))
        if isinstance(spec, dict):
            spec["scale"] = guess_model_scale(name) or next(iter(spec.get("scales", {})), "")
            spec["yaml_file"] = name
    if not isinstance(spec, dict) or not {"backbone", "head", "nc"} <= spec.keys():
        raise UserError(f"detector.model: {model!r} is no model description: it needs the keys nc, backbone and head")
    check_layers(spec, f"detector.model: {spec.get('yaml_file', 'the given network')}")
    if "yaml_file" in spec:
        spec["yaml_file"] = Path(spec["yaml_file"]).name  # .pt files carry somebody's folders
    return spec


def read_ultralytics(path: str | Path) -> dict:
    """Content of an Ultralytics .pt file, through the allow-list of its safe loader; raises where that refuses."""
    return torch_safe_load(path, safe_only=True)[0]


class YoloDetector(nn.Module):
    """An Ultralytics detection model (v3, v5u, v8, v9, v10, 11, 12, 26) behind `loss` and `predict`.

    Args:
        model: YAML name, YAML file or dictionary, see `model_yaml`.
        names: class names, index = class.

    Attributes:
        spec: {"name": "yolo", "args": {"model": whole YAML as a dictionary, "names": [...]}}, enough to rebuild it.
        stride: the height and width of images must be multiples of this.
        strides: of the head's levels.
        net: the Ultralytics DetectionModel.
        dtype: to which `predict` converts images; None leaves them as they are.

    Raises:
        ValueError: unknown model, or not a box detection model.
    """

    net: Any  # a DetectionModel, whose attributes have no types

    def __init__(self, model: str | dict, names: list[str] | tuple[str, ...]):
        super().__init__()
        if not names:
            raise UserError("names: a detector needs at least one class name")
        description = model_yaml(model) | {"nc": len(names)}
        called = description.get("yaml_file", "the given network")
        try:
            self.net = DetectionModel(description, nc=len(names), verbose=False)
        except Exception as error:  # Ultralytics checks nothing, so a faulty YAML fails in any way
            raise UserError(
                f"detector.model: {called} cannot be built ({type(error).__name__}: {error}); correct the YAML"
            ) from error
        if type(self.head) not in (Detect, v10Detect):
            raise UserError(
                f"detector.model: {called} ends in {type(self.head).__name__}; only box detection models (Detect, "
                "v10Detect) work here"
            )
        self.net.names = dict(enumerate(names))
        self.net.args = get_cfg()
        self.names = tuple(names)
        self.spec = {"name": "yolo", "args": {"model": deepcopy(self.net.yaml), "names": list(names)}}
        self.stride = int(self.net.stride.max())
        self.strides = tuple(self.net.stride.tolist())
        self.batchnorm_frozen = False
        self.frozen = False
        self.dtype: torch.dtype | None = None
        self.epoch = 0
        self._criterion: tuple[torch.device, Any] | None = None

    @property
    def head(self) -> Detect:
        """Last layer of the network."""
        return self.net.model[-1]

    def raw(self, images: Tensor, one2one: bool = True) -> dict:
        """Undecoded predictions of the head, as Ultralytics' criterion takes them; differentiable in every mode."""
        x: Any = images  # or what a layer makes, which may be a list
        saved: list[Any] = []
        *body, head = self.net.model
        for layer in body:
            if layer.f != -1:
                x = saved[layer.f] if isinstance(layer.f, int) else [x if j == -1 else saved[j] for j in layer.f]
            x = layer(x)
            saved.append(x if layer.i in self.net.save else None)
        levels = [x if j == -1 else saved[j] for j in head.f]
        many = head.forward_head(levels, **head.one2many)
        if not one2one or getattr(head, "one2one_cv2", None) is None:
            return many
        if self.training:  # as Ultralytics: the one-to-one branch does not train the backbone
            levels = [level.detach() for level in levels]
        return {"one2many": many, "one2one": head.forward_head(levels, **head.one2one)}

    def loss(
        self, images: Tensor, boxes: Tensor, classes: Tensor, image_index: Tensor, raw: dict | None = None
    ) -> dict[str, Tensor]:
        """Ultralytics' own detection loss, in fp32 also under autocast, as a mean over images.

        Args:
            images: (B, 3, H, W) in [0, 1]; H and W multiples of `stride`.
            boxes: (N, 4) cx, cy, w, h as shares of the image, in [0, 1]; N may be 0.
            classes: (N,) class indices.
            image_index: (N,) row in `images`, any order.
            raw: `raw(images)`, where it is there already.

        Returns:
            {"det": scalar with gradient (= box + cls + dfl), "box", "cls", "dfl": detached scalars}. "dfl" is the L1
            term of models without DFL (YOLO26).

        Raises:
            ValueError: sizes, boxes, classes or indices out of range.
        """
        self.check_images(images)
        _check_targets(boxes, classes, image_index, len(self.names), images.shape[0])
        order = torch.argsort(image_index, stable=True)  # Ultralytics' padding of targets takes them grouped by image
        batch = {
            "img": images,
            "batch_idx": image_index[order].float(),
            "cls": classes[order].float().view(-1, 1),
            "bboxes": boxes[order].float(),
        }
        raw = self.raw(images) if raw is None else raw
        with torch.autocast(images.device.type, enabled=False):
            terms, _ = self._criterion_on(images.device)(float32(raw), batch)
        terms = terms / images.shape[0]  # Ultralytics multiplies by the batch size
        box, cls, dfl = terms.detach().unbind()
        return {"det": terms.sum(), "box": box, "cls": cls, "dfl": dfl}

    @torch.no_grad()
    def predict(
        self,
        images: Tensor,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        multi_label: bool = False,
        classes: Sequence[int] | None = None,
        agnostic: bool = False,
    ) -> list[Tensor]:
        """Detections after Ultralytics' non-maximum suppression; the mode of the module is left as it was.

        Args:
            images: (B, 3, H, W) in [0, 1]; H and W multiples of `stride`.
            conf: lowest score.
            iou: overlap above which the weaker of two boxes of a class is dropped.
            max_det: most detections per image.
            multi_label: let one box carry several classes, as Ultralytics' validation does (not its prediction).
            classes: indices of the classes that are kept; None keeps all.
            agnostic: a box drops weaker ones of other classes too.

        Returns:
            Per image (n, 6) float32, best first: x1, y1, x2, y2 in pixels of the image, score, class.

        Raises:
            ValueError: image sizes that the model cannot take.
        """
        return self.boxes(self._seen(images), images.shape[2:], conf, iou, max_det, multi_label, classes, agnostic)

    def _seen(self, images: Tensor) -> dict:
        """`raw` in evaluation mode, in the type of `predict`; the mode of the module is left as it was."""
        self.check_images(images)
        training = self.training
        if training:
            self.eval()
        try:
            if self.dtype is not None:
                images = images.to(self.dtype, memory_format=torch.channels_last)
            return self.raw(images, one2one=False)
        finally:
            if training:
                self.train()

    @torch.no_grad()
    def decoded(self, images: Tensor) -> Tensor:
        """What `predict` sees before suppression, float32 (B, 4 + classes, A): cx, cy, w, h in pixels, class scores."""
        with torch.autocast(images.device.type, enabled=False):
            return self._decode(self._seen(images))

    def _decode(self, raw: dict) -> Tensor:
        raw = float32(raw.get("one2many", raw))
        self.head.shape, (self.head.anchors, self.head.strides) = raw["feats"][0].shape, self._anchors(raw["feats"])
        if self.head.end2end:
            raise RuntimeError("the model was switched to NMS-free output; leave `end2end` of its head False")
        return self.head._inference(raw)

    @torch.no_grad()
    def boxes(self, raw: dict, size: Sequence[int], *limits, **choice) -> list[Tensor]:
        """Detections as from `predict`, in what `raw` has made of images of this height and width."""
        with torch.autocast(raw.get("one2many", raw)["boxes"].device.type, enabled=False):
            return self.suppressed(self._decode(raw), size, *limits, **choice)

    @staticmethod
    def suppressed(
        decoded: Tensor,
        size: Sequence[int],
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        multi_label: bool = False,
        classes: Sequence[int] | None = None,
        agnostic: bool = False,
    ) -> list[Tensor]:
        """Detections as from `predict`, of decoded ones (B, 4 + classes, anchors): cx, cy, w, h in pixels, scores."""
        return non_max_suppression(
            decoded, conf, iou, None if classes is None else list(classes), agnostic, multi_label, max_det=max_det,
            max_time_img=float("inf"), max_wh=max(7680, *size),
        )  # fmt: skip

    def _anchors(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Anchor points (2, N) and strides (1, N), fp32, for feature maps (B, C, h, w) of these sizes.

        Ultralytics keeps those of the last call only, in the type and in the inference mode of that call.
        """
        sides = tuple(tuple(level.shape[-2:]) for level in levels)
        return anchor_grid(sides, self.strides, levels[0].device)

    def forward(self, images: Tensor) -> dict:
        """Same as `raw`."""
        return self.raw(images)

    def check_images(self, images: Tensor) -> None:
        """Raises UserError for images of a shape or type that `predict` does not take."""
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != 3 or not images.numel() or any(side % self.stride for side in shape[2:]):
            raise UserError(
                f"detector images have shape {shape}; expected (B, 3, H, W) with H and W multiples of {self.stride}: "
                "choose data.imgsz accordingly"
            )
        if not images.is_floating_point():
            raise UserError(f"detector images have type {images.dtype}; expected floating point in [0, 1]")

    def _criterion_on(self, device: torch.device):
        """Ultralytics' criterion for this device; its schedule (YOLO26, v10) is a pure function of the epoch."""
        if self._criterion is None or self._criterion[0] != device:
            self._criterion = (device, self.net.init_criterion())
            self.set_epoch(self.epoch)
        return self._criterion[1]

    def set_epochs(self, epochs: int) -> None:
        """Length of the training, which the schedule of YOLO26's and v10's loss needs."""
        self.net.args.epochs = epochs
        self.set_epoch(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Put the loss where it stands at the start of an epoch (from 0); call it when resuming."""
        self.epoch = epoch
        criterion = self._criterion and self._criterion[1]
        if criterion is not None and hasattr(criterion, "update"):
            criterion.updates = epoch - 1
            criterion.update()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable tensors by the model YAML's own split: {"backbone": [...], "head": [...]} (neck and head)."""
        n = len(self.net.yaml["backbone"])
        groups: dict[str, list[nn.Parameter]] = {"backbone": [], "head": []}
        for i, layer in enumerate(self.net.model):
            fixed = {id(p) for m in layer.modules() if type(m).__name__ == "DFL" for p in m.parameters()}
            groups["backbone" if i < n else "head"] += [p for p in layer.parameters() if id(p) not in fixed]
        return groups

    def freeze(self) -> None:
        """No gradient to the weights and evaluation mode for good, also after `.train()`; gradient to images stays."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def freeze_batchnorm(self) -> None:
        """Keep BatchNorm statistics as they are while training, for good."""
        self.batchnorm_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> YoloDetector:
        """Training mode, except where `freeze` or `freeze_batchnorm` say otherwise."""
        super().train(mode and not self.frozen)
        if self.batchnorm_frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


@device_constant(MOST_GRIDS)
def anchor_grid(
    sides: tuple[tuple[int, int], ...], strides: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Anchor points (2, N) and strides (1, N), fp32, of feature maps of these heights and widths."""
    points, steps = make_anchors([torch.empty(1, 1, *side, device=device) for side in sides], list(strides), 0.5)
    return points.transpose(0, 1), steps.transpose(0, 1)


def _check_targets(boxes: Tensor, classes: Tensor, image_index: Tensor, n_classes: int, batch: int) -> None:
    n = len(boxes)
    if boxes.shape != (n, 4) or classes.shape != (n,) or image_index.shape != (n,):
        raise UserError(
            f"targets have shapes boxes {tuple(boxes.shape)}, classes {tuple(classes.shape)}, image_index "
            f"{tuple(image_index.shape)}; expected (N, 4), (N,), (N,)"
        )
    if not n or boxes.is_cuda:  # there, looking at values would make every step wait; whoever read the labels looked
        return
    extremes = torch.stack([t.float() for pair in (boxes, classes, image_index) for t in (pair.min(), pair.max())])
    low, high, class_low, class_high, row_low, row_high = extremes.tolist()
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise UserError(
            f"boxes hold values in [{low:g}, {high:g}]; expected cx, cy, w, h as shares of the image in "
            "[0, 1]: divide pixel coordinates by width and height"
        )
    if class_low < 0 or class_high >= n_classes:
        raise UserError(
            f"classes hold {class_low:g} to {class_high:g}, but the detector has {n_classes} classes: "
            "correct the labels, or the names in the data-set YAML"
        )
    if row_low < 0 or row_high >= batch:
        raise UserError(f"image_index holds {row_low:g} to {row_high:g}, but the batch has {batch} images")
