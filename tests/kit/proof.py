"""What the proofs of the channel's promises share: sizes, crash points, and a nursery of real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tandem

FULL = os.environ.get("TANDEM_PROOF") == "full"
KIT = Path(__file__).parent
TRACED = (str(Path(tandem.__file__).parent), str(KIT))
NOT_TRACED = str(KIT / "proof.py")
STEPS = (1, 4, 8)
"""Training steps that one publication stands for."""


def size(quick: int, full: int) -> int:
    """How many trials: `quick` by default, `full` with TANDEM_PROOF=full in the environment."""
    return full if FULL else quick


def figure(promise: int, text: str) -> None:
    """Report what was measured for a promise, to the file that TANDEM_FIGURES names (see benchmarks/promises.py)."""
    path = os.environ.get("TANDEM_FIGURES")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"promise": promise, "figure": text}) + "\n")


def trace_lines(call: Callable[[], Any], on_line: Callable[[], None]) -> None:
    """Run `call`, and `on_line` just before each line of it in the package or in the kit."""

    def local(frame: Any, event: str, _: Any) -> Any:
        if event == "line":
            on_line()
        return local

    def enter(frame: Any, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        return local if name.startswith(TRACED) and name != NOT_TRACED else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        call()
    finally:
        sys.settrace(before)


def at_line(call: Callable[[], Any], number: int, action: Callable[[], Any]) -> bool:
    """Run `call`, and `action` just before its `number`-th line (from 1) in the package or in the kit.

    False if there were fewer lines. What `action` raises appears to be raised by that line.
    """
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            action()

    trace_lines(call, count)
    return seen >= number


def lines_of(call: Callable[[], Any]) -> int:
    """How many lines `call` executes in the package (and in the kit)."""
    lines = 0

    def count() -> None:
        nonlocal lines
        lines += 1

    trace_lines(call, count)
    return lines


class Planted(Exception):
    """An exception that a proof raises in the middle of something."""


def raise_planted() -> None:
    raise Planted


class Child:
    """One process that the nursery forked: `children.<target>(**arguments)`."""

    def __init__(self, nursery: Nursery, pid: int, folder: Path) -> None:
        self._nursery = nursery
        self.pid = pid
        self.folder = folder
        self.status: int | None = None

    def ready(self, timeout: float = 60.0) -> Child:
        """Wait until the child said that it is ready."""
        wait_for(lambda: (self.folder / "ready").exists() or self.poll() is not None, "the child is ready", timeout)
        assert (self.folder / "ready").exists(), self.stderr()
        return self

    def send(self, number: int) -> None:
        """A signal, unless the child has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead."""
        self.send(signal.SIGKILL)
        self.wait()

    def poll(self) -> int | None:
        """Exit status (negative: the signal that ended it), or None while it runs."""
        if self.status is None:
            self.status = self._nursery.ask("poll", self.pid)
        return self.status

    def wait(self, timeout: float = 120.0) -> int:
        """Wait for its end; the exit status."""
        status = wait_for(lambda: None if self.poll() is None else (self.status,), "the child's end", timeout)
        return int(status[0])

    def result(self, timeout: float = 3000.0) -> Any:
        """What the target returned. The child must end well."""
        status = self.wait(timeout)
        assert status == 0, f"status {status}\n{self.stderr()}"
        return json.loads((self.folder / "result").read_text(encoding="utf-8"))

    def stop(self) -> Any:
        """SIGTERM, which the children's loops look at, and the result."""
        self.send(signal.SIGTERM)
        return self.result()

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(encoding="utf-8")


class Nursery:
    """An interpreter of its own that has loaded torch and forks children on demand, each in milliseconds."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tandem-nursery-")
        self._process = subprocess.Popen(
            [sys.executable, str(KIT / "children.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._children: list[Child] = []

    def ask(self, *question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery died"
        return json.loads(answer)

    def start(self, target: str, **arguments: Any) -> Child:
        """Fork a child that runs `children.<target>(**arguments)`."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        pid = self.ask("start", target, arguments, str(folder))
        child = Child(self, pid, folder)
        self._children.append(child)
        return child

    def run(self, target: str, **arguments: Any) -> Any:
        """Run a child to its end; what it returned."""
        return self.start(target, **arguments).result()

    def clean(self) -> None:
        """Kill the children that still run."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
        self._children.clear()

    def close(self) -> None:
        self.clean()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._folder.cleanup()


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 60.0) -> Any:
    """Wait for a condition with a deadline; its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(0.002)
