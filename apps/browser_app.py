"""The page of the browser app: conditional SR before a detector, SR alone, and one-step diffusion."""

from __future__ import annotations

import html
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from apps.one_image import Limits, Shown, detect, policy_of, super_resolve
from deployment.latency_profile import LatencyProfile
from loading.shipped_weights import FOLDER, ONLY_BY_NAME, shipped_specs
from prediction.api import ConditionalYOLO
from prediction.super_resolver import SuperResolver
from utils.errors import UserError
from utils.extras import require

PANES = ("LR", "mask", "SR", "boxes")
COLOURS = {
    "reading": "#b8c4d0", "masker": "#c9a0dc", "SR_Fast": "#ffd9a0", "SR_Quality": "#ffb454", "SR": "#ffb454",
    "detection": "#7fc98f", "pictures": "#d9d9d9",
}  # fmt: skip
ONE_STEP = "one_step_small_x4"
NO_DETECTOR = "No detector was given: start with `--detector FILE`, or run `make demo` once."


@dataclass(frozen=True)
class Setup:
    """What the page stands on.

    Args:
        model: system with a detector; None: SR alone.
        profile: latency profile of the model, for a slider of milliseconds.
        scale: factor of SR alone.
        device, half: where SR alone runs; see `SuperResolver`.
        limits: what is taken from a visitor.
        files: folder for what is shown; Gradio copies from it what a page asks for.
        examples: image files.
    """

    model: ConditionalYOLO | None
    profile: LatencyProfile | None
    scale: int
    device: str
    half: bool
    limits: Limits
    files: Path
    examples: Sequence[Path] = field(default=())


def build_page(setup: Setup):
    """Gradio Blocks, not yet served. Raises MissingExtra without Gradio."""
    gr = require("gradio", "app", "the browser app")
    resolver = lru_cache(maxsize=2)(lambda name: SuperResolver(FOLDER / name, None, setup.device, setup.half))
    with gr.Blocks(title="Conditional super-resolution", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        with gr.Row():
            gr.Markdown("## Conditional super-resolution\nWheel over a picture: all of them are magnified.")
            zoom = gr.Slider(1, 32, 1, step=0.5, label="zoom", elem_id="zoom", min_width=120)
        zoom.input(None, zoom, None, js="(zoom) => { window.setZoom(zoom); return []; }", api_visibility="private")
        with gr.Tabs():
            with gr.Tab("Detection"):
                if setup.model is None:
                    gr.Markdown(NO_DETECTOR)
                else:
                    detection_tab(gr, setup, setup.model)
            with gr.Tab("SR only"):
                files = sr_files(setup.scale)
                if files:
                    sr_tab(gr, setup, "sr", files, resolver)
                else:
                    gr.Markdown(f"No SR weights are shipped for x{setup.scale}; start with `--scale 2` or `--scale 4`.")
            with gr.Tab("One step"):
                missing = what_one_step_lacks()
                if missing:
                    gr.Markdown(missing)
                else:
                    sr_tab(gr, setup, "one-step", [f"{ONE_STEP}.safetensors"], resolver)
    return page


def detection_tab(gr, setup: Setup, model: ConditionalYOLO) -> None:
    """Image, budget and lowest score in; four panes, time bar and downloads out."""
    image = image_input(gr, setup, "detection")
    with gr.Row():
        budget, policy = budget_slider(gr, setup, model)
        conf = gr.Slider(0, 1, 0.25, step=0.01, label="lowest score", elem_id="conf")
    panes, line, bar, downloads = outputs(gr, PANES if model.conditional else PANES[:1] + PANES[2:], "detection")

    def run(file, amount, least):
        return answered(
            gr, file, setup, panes, lambda path: detect(model, path, policy(amount), least, setup.limits, setup.files)
        )

    connect(gr, run, [image, budget, conf], [*panes.values(), line, bar, *downloads])


def sr_tab(gr, setup: Setup, name: str, files: Sequence[str], resolver: Callable[[str], SuperResolver]) -> None:
    """Image and network in; two panes, time bar and download out."""
    image = image_input(gr, setup, name)
    network = gr.Dropdown(list(files), value=files[0], label="network", elem_id=f"{name}-network")
    panes, line, bar, downloads = outputs(gr, ("LR", "SR"), name)

    def run(file, chosen):
        return answered(
            gr, file, setup, panes, lambda path: super_resolve(resolver(chosen), path, setup.limits, setup.files)
        )

    connect(gr, run, [image, network], [*panes.values(), line, bar, *downloads])


def image_input(gr, setup: Setup, name: str):
    """Where an image is dropped, and examples below; nothing of the file is looked at before this project reads it."""
    label = f"image: up to {setup.limits.pixels / 1e6:g} million pixels, {setup.limits.upload_mb} MB"
    image = gr.File(label=label, type="filepath", height=120, elem_id=f"{name}-image")
    if setup.examples:
        samples = [[str(path)] for path in setup.examples]
        examples = gr.Dataset(
            components=[gr.Image(render=False)],
            samples=samples,
            label="examples",
            elem_id=f"{name}-examples",
            type="index",
        )
        examples.click(lambda index: samples[index][0], examples, image, api_visibility="private")
    return image


def budget_slider(gr, setup: Setup, model: ConditionalYOLO):
    """Slider, and what its value means as a policy."""
    profile = setup.profile
    if profile is not None:
        side = max(1, round(math.sqrt(profile.full.work[-1])))
        rows = -(-side // profile.patch)
        least, most = (profile.total_ms(side, side, 1, kept) for kept in (0, rows * rows))
        slider = gr.Slider(
            math.floor(least), math.ceil(max(most, least + 1)), math.ceil((least + most) / 2), step=1,
            label="milliseconds of the whole call", elem_id="budget",
        )  # fmt: skip
        return slider, lambda amount: f"latency_ms={amount:g}"
    label = "budget: share of patches that SR_Quality runs on" + (
        "" if model.has_masker else ", those with edges first"
    )
    slider = gr.Slider(0, 1, 0.25, step=0.05, label=label, elem_id="budget", visible=model.conditional)
    return slider, lambda amount: policy_of(model, amount)


def outputs(gr, names: Sequence[str], prefix: str):
    """Panes side by side, a line, the time bar and the downloads; ids are PREFIX-NAME."""
    with gr.Row():
        panes = {
            name: gr.Image(
                type="filepath", label=name, interactive=False, buttons=["fullscreen"], min_width=120,
                elem_classes="pane", elem_id=f"{prefix}-{name}",
            )
            for name in names
        }  # fmt: skip
    line = gr.Markdown(elem_id=f"{prefix}-line")
    bar = gr.HTML(elem_id=f"{prefix}-time")
    with gr.Row():
        downloads = [gr.DownloadButton("SR picture (PNG)", interactive=False, elem_id=f"{prefix}-save-sr")]
        if "boxes" in names:
            downloads.append(gr.DownloadButton("boxes (JSON)", interactive=False, elem_id=f"{prefix}-save-boxes"))
    return panes, line, bar, downloads


def connect(gr, run: Callable, inputs: list, shown: list) -> None:
    """Run when any input changes; of changes that come while it runs, only the last counts."""
    gr.on(
        [item.change for item in inputs], run, inputs, shown,
        trigger_mode="always_last", show_progress="minimal", api_visibility="private",
        concurrency_id="one image at a time", concurrency_limit=1,
    )  # fmt: skip


def answered(gr, file: str | None, setup: Setup, panes: Mapping[str, object], show: Callable[[Path], Shown]) -> list:
    """Values of the outputs; what the visitor can mend becomes a message on the page."""
    shutil.rmtree(setup.files, ignore_errors=True)  # one at a time: Gradio has its own copy of what was shown last
    downloads = 2 if "boxes" in panes else 1
    nothing = [None] * len(panes) + ["", ""] + [gr.update(value=None, interactive=False)] * downloads
    if file is None:
        return nothing
    try:
        shown = show(Path(file))
    except UserError as error:
        gr.Warning(html.escape(str(error)), title="Not possible")
        nothing[len(panes)] = f"**{html.escape(str(error))}**"
        return nothing
    saves = [shown.pictures["SR"], shown.boxes][:downloads]
    pictures = [str(shown.pictures[name]) for name in panes]
    return [*pictures, shown.line, time_bar(shown.parts)] + [gr.update(value=str(f), interactive=True) for f in saves]


def time_bar(parts: Mapping[str, float]) -> str:
    """HTML of one bar, each part as wide as it takes long."""
    spans = [
        f'<span title="{part}: {ms:.1f} ms" style="flex: {max(ms, 0.01):.2f} 1 0; background: {COLOURS[part]}">'
        f"{part} {ms:.0f} ms</span>"
        for part, ms in parts.items()
    ]
    return f'<div class="time-bar">{"".join(spans)}</div>'


def sr_files(scale: int) -> list[str]:
    """Names of the shipped SR weights for a scale, the strongest first, without diffusion systems."""
    files = [
        path for path, spec in shipped_specs().items()
        if spec["args"].get("scale") == scale and spec["name"] not in ONLY_BY_NAME
    ]  # fmt: skip
    return [path.name for path in sorted(files, key=lambda path: -path.stat().st_size)]


def what_one_step_lacks() -> str | None:
    """One line about what the one-step system needs and is not there; None: nothing."""
    try:
        for library in ("diffusers", "peft"):
            require(library, "generative", "one-step diffusion")
    except UserError as error:
        return f"Not here: {error}"
    return None
