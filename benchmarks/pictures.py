"""Draws the pictures of the dashboard, docs/img/dashboard-{light,dark,phone}.png, of a demonstration that is played.

`python benchmarks/pictures.py [--seconds N] [--to FOLDER]`: `ctl demo` plays for a while, and a Chromium looks at its
page on a desk (1280 pixels wide) in both schemes, and on a phone (390). Needs playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "img"
PICTURES: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
"""What playwright is told of each window."""
LOOK = 8.0
"""Seconds that a page is open before it is drawn: what it shows a second of is then known."""


@contextlib.contextmanager
def demo() -> Iterator[str]:
    """The address of the dashboard of a game that is played. Raises RuntimeError if it does not start."""
    command = [sys.executable, "-m", "tandem.supervisor", "demo", "--seed", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                _, found, url = line.strip().partition("dashboard: ")
                if found:
                    break
            else:
                raise RuntimeError("the demonstration did not start")
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)


def draw(browser: Any, url: str, path: Path, options: dict[str, Any]) -> None:
    """The whole page, as one window shows it."""
    context = browser.new_context(locale="en-GB", **options)
    page = context.new_page()
    page.goto(url)
    page.wait_for_timeout(LOOK * 1e3)
    page.screenshot(path=path, full_page=True)
    context.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="that are played before the first picture")
    parser.add_argument("--to", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        parser.error("there is no Chromium on this machine")
    with sync_playwright() as playwright, demo() as url:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        time.sleep(options.seconds)
        for name, window in PICTURES.items():
            path = options.to / f"dashboard-{name}.png"
            draw(browser, url, path, window)
            print(path)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
