"""A browser, and servers for it to look at."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium, driven by playwright, whose event loop must not outlast the module."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield running
        running.close()


class Visit:
    """A page that is open on a server's dashboard, and what went wrong on it."""

    def __init__(self, browser: Any, server: Any, **options: Any) -> None:
        self.server = server
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._note)
        self.page.goto(f"{server.url}/dashboard")
        self.wait("document.getElementById('updated').textContent !== 'never'")

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.foreign.append(request.url)

    def text(self, name: str) -> str:
        """The text of the element with this id."""
        content: str = self.page.text_content(f"#{name}")
        return content.strip()

    def wait(self, expression: str, timeout: float = 20.0) -> None:
        """Wait until a JavaScript expression is true. (The page's policy forbids playwright's own way, by eval.)"""
        deadline = time.monotonic() + timeout
        while not self.page.evaluate(f"() => Boolean({expression})"):
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {expression}"
            self.page.wait_for_timeout(50)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """`visit(server, ...)` opens the dashboard; in the end it had no console error and asked no other host."""
    visits: list[Visit] = []

    def open_page(server: Any, **options: Any) -> Visit:
        visits.append(Visit(browser, server, **options))
        return visits[-1]

    yield open_page
    for item in visits:
        item.context.close()
        assert item.errors == []
        assert item.foreign == []


class Demo:
    """A server, a trainer process, and a player in a thread that can be halted."""

    def __init__(self, server: Any) -> None:
        self.server = server
        command = [sys.executable, "-m", "tandem.trainer_proc", "--instance", server.name]
        self.trainer = subprocess.Popen(command)
        self._halt = threading.Event()
        self._player = threading.Thread(target=self._play)
        self._player.start()

    def _play(self) -> None:
        from server_kit import ask, browser_observation

        with self.server.connect("/ws/player") as client:
            client.recv(timeout=10)
            number = 0
            while not self._halt.wait(0.005):
                number += 1
                ask(client, browser_observation(mining=(47, 52, number % 400), queen=float(number % 100)))

    def halt(self) -> None:
        """Send no more observations."""
        self._halt.set()
        self._player.join(20)

    def close(self) -> None:
        """Stop player and trainer."""
        self.halt()
        self.trainer.terminate()
        assert self.trainer.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A game that is being played and learned from, shared by the tests of a module."""
    from server_kit import RunningServer

    server = RunningServer(
        tmp_path_factory.mktemp("demo"),
        gate={"reward_threshold": 0.6},
        trainer={"training_interval": 0.05, "checkpoint_interval": 1.0, "seed": 1, "nice": 0},
    )
    running = Demo(server)
    deadline = time.monotonic() + 60
    while server.engine.model_version < 20:
        assert time.monotonic() < deadline, "the trainer did not reach version 20"
        time.sleep(0.05)
    yield running
    running.close()
    server.close()
