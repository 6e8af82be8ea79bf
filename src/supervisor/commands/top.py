"""`ctl top`: one screen of what an instance does now, with keys for the operator; plain text if it is redirected."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator

from ...shared.commands import BEST, PREVIOUS, set_paused
from ...shared.errors import TandemError
from .. import operate
from ..display.screen import Line, compose, plain
from ..display.top_sample import Reader

EXAMPLE = "ctl top --instance a\n  ctl top --count 3 --interval 10 >> top.txt"
EXITS = "0 it was left, or printed; 1 nothing runs under that name"

KEYS = "p pause   r resume   b roll back   q quit"
_ESCAPE = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|O.|.)?")
"""What an arrow key and its like send: the letters in it are no commands."""
_QUESTION = "roll back? p: to the previous checkpoint   b: to the best   any other key: no"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..cli import add_instance

    add_instance(parser)
    parser.add_argument("--interval", type=_seconds, default=1.0, metavar="S", help="seconds between looks (1)")
    parser.add_argument(
        "--count", type=_positive, metavar="N", help="leave after N looks (default: 1 if redirected, else no end)"
    )


def run(options: argparse.Namespace) -> int:
    """Show it."""
    reader = Reader(options.instance)
    if reader.read().status["state"] == "stopped":
        print(f"ctl: nothing runs as instance {options.instance!r}", file=sys.stderr)
        return 1
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return Screen(reader, options.interval, options.count).run()
    return _print(reader, options.interval, options.count or 1)


def _print(reader: Reader, interval: float, count: int) -> int:
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    for number in range(count):
        # Rates are of the time between two looks, so the first one is not shown.
        time.sleep(interval)
        reading = reader.read()
        if number:
            print()
        print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        print(plain(compose(reader, reading, is_unicode=is_unicode)), flush=True)
        if reading.status["state"] == "stopped":
            return 1
    return 0


class Screen:
    """The terminal: draws at each interval and after each key."""

    def __init__(self, reader: Reader, interval: float, count: int | None) -> None:
        self._reader = reader
        self._interval = interval
        self._count = count
        self._message = ""
        self._asking = False
        self._done = False

    def run(self) -> int:
        """Until `q`, Ctrl-C, or `count` looks."""
        try:
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text
        except ImportError:
            raise TandemError("ctl top needs the package rich: pip install 'tandem-learning[terminal]'") from None
        console = Console(highlight=False)
        is_unicode = console.encoding.startswith("utf")

        def draw(lines: list[Line]) -> Text:
            room, width = max(1, console.height - 2), console.width - 1
            body = [*lines[:room], *([[]] * (room - len(lines)))]
            text, style = (_QUESTION, "bold yellow") if self._asking else (KEYS, "reverse")
            foot: list[Line] = [[(self._message[:width], "bold")], [(text[:width].ljust(width), style)]]
            return Text("\n").join([Text.assemble(*line, no_wrap=True) for line in (*body, *foot)])

        signal.signal(signal.SIGTERM, self._leave)
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            looks = 0
            with contextlib.suppress(KeyboardInterrupt):
                while not self._done:
                    reading = self._reader.read()
                    live.update(draw(compose(self._reader, reading, console.width - 1, is_unicode)), refresh=True)
                    looks += 1
                    if looks == self._count:
                        break
                    for key in pressed(self._interval):
                        self._press(key)
        return 0

    def _leave(self, number: int, frame: object) -> None:
        self._done = True

    def _press(self, key: str) -> None:
        if self._asking:
            self._asking = False
            targets = {"p": PREVIOUS, "b": BEST}
            if key in targets:
                self._message = "rolling back ..."
                threading.Thread(target=self._roll_back, args=(targets[key],), daemon=True).start()
        elif key == "q":
            self._done = True
        elif key in "pr":
            self._pause(key == "p")
        elif key == "b":
            self._asking = True

    def _pause(self, paused: bool) -> None:
        try:
            control = operate.open_running(self._reader.instance)
            set_paused(control, paused)
            control.close()
            self._message = "training is paused" if paused else "training goes on"
        except (TandemError, OSError) as error:
            self._message = str(error)

    def _roll_back(self, target: int) -> None:
        try:
            control = operate.open_running(self._reader.instance)
            version = operate.ask(control, "rollback", target)
            self._message = f"version {version} has the weights of version {control.get('restored_version')}"
            control.close()
        except (TandemError, OSError) as error:
            self._message = str(error)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits up to so many seconds for keys and returns them; the terminal is restored afterwards."""
    if not sys.stdin.isatty():

        def wait(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield wait
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> str:
        if not select.select([descriptor], [], [], seconds)[0]:
            return ""
        typed = os.read(descriptor, 64)
        if not typed:
            raise KeyboardInterrupt
        return _ESCAPE.sub(b"", typed).decode("ascii", "ignore").lower()

    tty.setcbreak(descriptor)
    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError("must be between 0.1 and 3600")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
