"""A picture of the browser app at work, as the README shows it; needs requirements-app.txt and Debian's chromium.

    python -m tools.app_picture --detector yolo11n.pt --example 2 --out docs/pictures/app.png

Starts app.py, opens it in chromium without a screen, clicks on an example and saves what is then seen.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
Found = TypeVar("Found")
WAIT_S = 300  # a slow machine loads the networks for long


@contextmanager
def chromium(downloads: Path, size: tuple[int, int] = (1400, 1100)) -> Iterator:
    """A selenium driver of Debian's chromium with an empty profile, in which every request is logged.

    Args:
        downloads: folder of what is saved by a click.
        size: of the window in pixels, width and height.
    """
    from utils.extras import require

    webdriver = require("selenium.webdriver", "app", "a browser")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for option in (
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}",
        ):  # fmt: skip
            options.add_argument(option)
        automatic = "profile.default_content_setting_values.automatic_downloads"
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads), automatic: 1})
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        driver.set_page_load_timeout(WAIT_S)
        try:
            yield driver
        finally:
            driver.quit()


def until(condition: Callable[[], Found], what: str, seconds: float = WAIT_S) -> Found:
    """The first true value of a condition, asked again and again, also of elements that are just being replaced.

    Raises:
        TimeoutError: it stays false.
    """
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except (NoSuchElementException, StaleElementReferenceException):
            pass
        time.sleep(0.1)
    raise TimeoutError(f"not within {seconds} s: {what}")


@contextmanager
def running_app(options: list[str]) -> Iterator[str]:
    """Address of app.py with these options, in a process of its own."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = next((line for line in process.stdout or [] if line.startswith("app: ")), "")
            address = re.search(r"http://\S+/", found)
            if address is None:
                raise SystemExit("app.py did not start")
            yield address[0]
        finally:
            process.terminate()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--weights", help="checkpoint of stage 3")
    what.add_argument("--detector", help="deployed detector, behind shipped SR weights")
    parser.add_argument("--example", type=int, default=0, help="which example image, from 0")
    parser.add_argument("--out", type=Path, required=True, help="PNG file")
    options = parser.parse_args(argv)

    from PIL import Image

    system = ["--weights", options.weights] if options.weights else ["--detector", options.detector]
    with (
        tempfile.TemporaryDirectory() as folder,
        running_app(system) as address,
        chromium(Path(folder), (1300, 1060)) as driver,
    ):
        driver.get(address)
        find = driver.find_elements
        until(lambda: len(find("css selector", "#detection-examples img")) > options.example, "examples")
        driver.execute_script(
            "arguments[0].click()", find("css selector", "#detection-examples button")[options.example]
        )
        until(lambda: "objects" in find("css selector", "#detection-line")[0].text, "boxes")
        time.sleep(1)  # pictures fade in
        shot = driver.get_screenshot_as_png()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(shot)) as picture:
        picture.convert("RGB").quantize(256).save(options.out, optimize=True)  # a few hundred kB
    print(f"{options.out}: {options.out.stat().st_size // 1000} kB")
    return 0


if __name__ == "__main__":
    from utils.cli import run

    run(main)
