"""The app as a person meets it, in a real browser: upload, slider, zoom, downloads, a bad file; no foreign address."""

from __future__ import annotations

import io
import json
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prediction.api import ConditionalYOLO
from tests.extras import needs_browser, needs_extra
from tests.prediction.running import noise
from tools.app_picture import chromium, until

pytestmark = [needs_extra("app"), needs_browser]
PANES = ("LR", "mask", "SR", "boxes")


class Page:
    """What a person sees and does."""

    def __init__(self, driver, address: str, downloads: Path):
        self.driver, self.downloads = driver, downloads
        driver.get(address)
        until(lambda: self.all("#detection-image input[type=file]"), "the page")

    def all(self, css: str) -> list:
        return self.driver.find_elements("css selector", css)

    def one(self, css: str):
        return self.driver.find_element("css selector", css)

    def text(self, css: str) -> str:
        return self.one(css).text

    def upload(self, path: Path, tab: str = "detection") -> None:
        if self.all(f"#{tab}-image [aria-label='Clear']"):
            self.driver.execute_script("arguments[0].click()", self.one(f"#{tab}-image [aria-label='Clear']"))
        until(lambda: self.all(f"#{tab}-image input[type=file]"), "where a file is dropped")
        self.one(f"#{tab}-image input[type=file]").send_keys(str(path))

    def budget(self, value: float) -> None:
        number = self.one("#budget input[type=number]")
        number.send_keys("\ue009a\ue000" + f"{value}\t")  # Ctrl+A, then what is typed

    def line(self, tab: str = "detection") -> str:
        return self.text(f"#{tab}-line")

    def picture(self, name: str, tab: str = "detection") -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(fetched(self.one(f"#{tab}-{name} img").get_attribute("src")))))

    def download(self, name: str, file: str, tab: str = "detection") -> bytes:
        """What a click on a button saves as `file`."""
        until(lambda: self.one(f"#{tab}-save-{name}").is_enabled(), "a button to click")
        self.driver.execute_script("arguments[0].click()", self.one(f"#{tab}-save-{name}"))
        until((self.downloads / file).is_file, f"download of {file}", 60)
        content = (self.downloads / file).read_bytes()
        (self.downloads / file).unlink()
        return content


def fetched(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def page(address, tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    with chromium(downloads) as driver:
        yield Page(driver, address, downloads)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "noise.png"
    Image.fromarray(noise(40, 48, 3)).save(path)
    return path


@pytest.fixture
def uploaded(page, image) -> Page:
    page.upload(image)
    until(lambda: "objects in 48x40" in page.line(), "boxes")
    return page


def test_upload_shows_boxes_and_they_can_be_downloaded(uploaded, weights, image):
    (right,) = ConditionalYOLO(weights, device="cpu").predict(image, "budget=0.25")
    assert len(right) > 0 and uploaded.line().startswith(f"{len(right)} objects")
    found = json.loads(uploaded.download("boxes", "boxes.json"))
    assert [it["name"] for it in found["detections"]] == [right.names[int(label)] for label in right.boxes.cls]
    np.testing.assert_allclose([it["box"] for it in found["detections"]], right.boxes.xyxy, atol=2e-3)
    np.testing.assert_array_equal(Image.open(io.BytesIO(uploaded.download("sr", "SR.png"))), right.sr)
    np.testing.assert_array_equal(uploaded.picture("LR"), noise(40, 48, 3))
    plain = np.asarray(Image.fromarray(right.sr).resize((960, 800), Image.Resampling.NEAREST))
    assert (uploaded.picture("boxes") != plain).any(axis=-1).mean() > 0.005
    parts = uploaded.text("#detection-time")
    assert [
        part for part in ("reading", "masker", "SR_Fast", "SR_Quality", "detection", "pictures") if part in parts
    ] == parts.split()[::3]


def test_the_slider_moves_the_mask(uploaded):
    before = uploaded.picture("mask")
    uploaded.budget(0.75)
    until(lambda: "75% of the patches" in uploaded.line(), "another mask")
    until(lambda: (uploaded.picture("mask") != before).any(), "another picture of the mask")
    tinted = (uploaded.picture("mask") == (255, 140, 0)).all(axis=-1).sum()
    uploaded.budget(0)
    until(lambda: " 0% of the patches" in uploaded.line(), "no mask")
    until(lambda: (uploaded.picture("mask") == (255, 140, 0)).all(axis=-1).sum() < tinted / 4, "no patch")
    uploaded.budget(0.25)


@pytest.mark.parametrize("name", ["broken.png", "large.png"])
def test_a_bad_file_gives_a_message_and_the_page_goes_on(page, image, tmp_path: Path, name: str):
    if name == "large.png":
        Image.new("RGB", (400, 300)).save(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(image.read_bytes()[:300])
    page.upload(tmp_path / name)
    until(lambda: name in page.line(), "a message")
    assert "/" not in page.line().replace("height x width", "") and "Traceback" not in page.line()
    assert name in until(lambda: page.text(".toast-body"), "a note")
    assert not page.all("#detection-boxes img")
    page.upload(image)
    until(lambda: "objects in 48x40" in page.line(), "boxes again")


def test_all_pictures_are_magnified_together(uploaded):
    def scales() -> set[str]:
        style = "return getComputedStyle(arguments[0]).transform"
        return {uploaded.driver.execute_script(style, uploaded.one(f"#detection-{name} img")) for name in PANES}

    assert scales() == {"matrix(1, 0, 0, 1, 0, 0)"}
    wheel = "arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: -1, bubbles: true, cancelable: true}))"
    uploaded.driver.execute_script(wheel, uploaded.one("#detection-SR img"))
    assert scales() == {"matrix(1.25, 0, 0, 1.25, 0, 0)"}
    uploaded.one("#zoom input[type=number]").send_keys("\ue009a\ue000" + "4\t")
    until(lambda: scales() == {"matrix(4, 0, 0, 4, 0, 0)"}, "zoom of the slider")
    uploaded.driver.execute_script("window.setZoom(1)")
    widths = {round(uploaded.one(f"#detection-{name} img").size["width"]) for name in PANES}
    assert len(widths) == 1, "panes of equal size, so that they show the same place"


def test_an_example_is_used_at_a_click(page):
    page.driver.execute_script("arguments[0].click()", page.all("#detection-examples img")[0])
    until(lambda: "in 80x80 pixels" in page.line(), "boxes of the example")


def test_super_resolution_alone(page, image):
    page.all("button[role=tab]")[1].click()
    until(lambda: page.all("#sr-image input[type=file]"), "the tab")
    page.upload(image, "sr")
    until(lambda: page.line("sr") == "48x40 pixels to 192x160", "the picture")
    assert page.picture("SR", "sr").shape == (160, 192, 3) and page.download("sr", "SR.png", "sr").startswith(
        b"\x89PNG"
    )
    page.all("button[role=tab]")[0].click()


def test_nothing_was_fetched_from_elsewhere(page, address):
    time.sleep(0.5)
    seen = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    urls = {it["params"]["request"]["url"] for it in seen if it["method"] == "Network.requestWillBeSent"}
    foreign = {url for url in urls if not url.startswith((address, "data:", "blob:", "chrome:", "chrome-untrusted:"))}
    assert len(urls) > 10 and not foreign
