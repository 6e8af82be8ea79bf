"""`ctl top` on a pseudo terminal, and redirected."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from tandem.supervisor.display import status

from .conftest import Ctl

pytest.importorskip("rich")

Wait = Callable[..., Any]


class Terminal:
    """A command on a pseudo terminal of 80x24."""

    def __init__(self, command: list[str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.set_blocking(self.master, False)
        self.shown = ""

    def read(self) -> str:
        """What was drawn since the last `clear`."""
        try:
            while data := os.read(self.master, 65536):
                self.shown += data.decode("utf-8", "replace")
        except (BlockingIOError, OSError):
            pass
        return self.shown

    def type(self, keys: str) -> None:
        """Press keys; what was drawn before is forgotten."""
        self.read()
        self.shown = ""
        os.write(self.master, keys.encode())

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def test_the_screen_shows_and_obeys(ctl: Ctl, wait_until: Wait) -> None:
    """`top` shows the instance on a terminal; p pauses, r resumes, b asks and rolls back, q leaves and restores the
    terminal; redirected it prints plain text."""
    assert ctl.up().returncode == 0
    url = f"ws{ctl.status['url'][4:]}/ws"
    game = ["-m", "tandem.queen.game_client", "--url", url, "--seconds", "2", "--speed", "60", "--json"]
    subprocess.run([ctl.arguments("top")[0], *game], capture_output=True, check=True)
    wait_until(lambda: ctl.status["model_version"] >= 3, "three versions")

    redirected = ctl("top", "--count", "2", "--interval", "0.2")
    assert redirected.returncode == 0, redirected.stderr
    assert redirected.stdout.count(f"instance {ctl.instance}") == 2
    assert "\x1b" not in redirected.stdout
    for word in ("version", "loss", "reward", "lag", "decisions", "latency", "ring", "pending"):
        assert f"\n{word} " in redirected.stdout

    control = status.open_control(ctl.instance)
    assert control is not None
    terminal = Terminal(ctl.arguments("top", "--interval", "0.2"))
    try:
        wait_until(lambda: "q quit" in terminal.read(), "the screen is drawn")
        assert "\x1b[?1049h" in terminal.read(), "it uses the alternate screen"
        terminal.type("p")
        wait_until(lambda: control.get("command.pause") == 1, "training is paused")
        wait_until(lambda: "training paused" in terminal.read(), "the screen says so")
        terminal.type("r")
        wait_until(lambda: control.get("command.pause") == 0, "training goes on")
        assert ctl("checkpoint").returncode == 0
        saved = ctl.status["model_version"]
        wait_until(lambda: ctl.status["model_version"] > saved, "a version after the checkpoint")
        terminal.type("b")
        wait_until(lambda: "roll back?" in terminal.read(), "it asks first")
        terminal.type("n")
        wait_until(lambda: "q quit" in terminal.read(), "another key is no")
        assert control.get("rollbacks") == 0
        terminal.type("\x1b[A")
        terminal.type("b")
        wait_until(lambda: "roll back?" in terminal.read(), "it asks first")
        terminal.type("p")
        wait_until(lambda: control.get("rollbacks") == 1, "it was rolled back")
        wait_until(lambda: "has the weights of version" in terminal.read(), "the screen says so")
        terminal.type("q")
        assert terminal.process.wait(10) == 0
        assert {"\x1b[?25h", "\x1b[?1049l"} <= set(re.findall(r"\x1b\[\?\d+[hl]", terminal.read())), "it is left"
        assert termios.tcgetattr(terminal.slave) == terminal.before
    finally:
        terminal.close()

    terminal = Terminal(ctl.arguments("top", "--interval", "0.2"))
    try:
        wait_until(lambda: "q quit" in terminal.read(), "the screen is drawn")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(10) == 0
        assert termios.tcgetattr(terminal.slave) == terminal.before, "a signal leaves no broken terminal either"
    finally:
        terminal.close()
        control.close()

    assert ctl("down").returncode == 0
    nothing = ctl("top")
    assert (nothing.returncode, len(nothing.stderr.splitlines())) == (1, 1)


def test_freshness_comes_from_rewards_that_were_learned_from(ctl: Ctl, wait_until: Wait) -> None:
    """`top` shows what the statistics say of the rewards that a game brought, on a terminal and redirected.

    They are rewards of that game: no more of them than came, and none waited for longer than it was played.
    """
    assert ctl.up().returncode == 0
    assert "freshness" not in ctl("top").stdout, "there is a figure before the first reward"
    url, began = ctl.status["url"], time.monotonic()
    game = ["-m", "tandem.queen.game_client", "--url", f"ws{url[4:]}/ws", "--seconds", "2", "--speed", "60", "--json"]
    subprocess.run([ctl.arguments("top")[0], *game], capture_output=True, check=True)
    played = time.monotonic() - began
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/api/training/stats", timeout=20) as answer:
        stats = json.load(answer)
    fresh = stats["training"]["freshness"]
    assert 0 < fresh["count"] <= stats["buffer"]["completed"]
    # A percentile may lie at the upper bound of its bucket.
    assert 0.0 < fresh["p50_seconds"] <= fresh["p99_seconds"] <= 2**0.5 * played

    expected = f"p50 {fresh['p50_seconds']:.2f} s   p99 {fresh['p99_seconds']:.2f} s"
    assert f"\nfreshness  {expected}\n" in ctl("top").stdout
    terminal = Terminal(ctl.arguments("top", "--interval", "0.2"))
    try:
        wait_until(lambda: re.search(rf"freshness  (\x1b\[\d*m)*{expected}", terminal.read()), "the screen shows it")
    finally:
        terminal.close()
