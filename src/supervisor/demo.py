"""A demonstration: an instance of its own, the application's game played against it, and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..shared.configuration.addresses import reachable
from ..shared.configuration.config import Config
from ..shared.errors import SupervisorError
from ..shared.memory.control import Control
from ..shared.memory.processes import module_command, start_ticks
from ..shared.telemetry.snapshot import Snapshot
from .children import process_tree
from .children.logfile import tail
from .supervisor import Supervisor

_END = 30.0
"""Seconds that the game may take to end after its time is up."""


@dataclasses.dataclass(frozen=True)
class Game:
    """What is played: seconds of real time (None: until stopped), times faster than real, and the world's size.

    A field that is None is left to the game client.
    """

    seconds: float | None = None
    speed: float = 100.0
    territories: int | None = None
    seed: int | None = None

    def command(self, application: str, url: str, folder: str) -> list[str]:
        """The command line of the application's game client; it may lie in the configuration's `folder`."""
        command = module_command(f"{application}.game_client", "--url", url, "--json", beside=folder)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                command += [f"--{field.name}", f"{value:g}" if isinstance(value, float) else str(value)]
        return command


def play(
    config: Config, game: Game, tell: Callable[[str], None], show: Callable[[Control], None]
) -> dict[str, Any] | None:
    """Play, and leave nothing behind. The figures, or None if a signal ended it.

    `tell` is given lines for people; `show` is called twice a second while the game runs.
    Raises StartFailed, or SupervisorError if the game client fails.
    """
    with tempfile.TemporaryDirectory(prefix="tandem-demo-") as folder:
        config = dataclasses.replace(config, data_dir=folder)
        supervisor = Supervisor(f"demo-{os.getpid()}", config, save=False)
        supervisor.handle_signals(hangup=True)
        tell("starting the server and the trainer")
        try:
            supervisor.open()
            supervisor.wait_ready()
        except BaseException:
            supervisor.close()
            if supervisor.stopping:
                return None
            raise
        try:
            tell(f"dashboard: http://{_address(supervisor)}/dashboard")
            return _play(supervisor, game, Path(folder), show)
        finally:
            supervisor.close()


def _address(supervisor: Supervisor) -> str:
    return reachable(supervisor.config.inference.host, supervisor.port)


def _play(supervisor: Supervisor, game: Game, folder: Path, show: Callable[[Control], None]) -> dict[str, Any] | None:
    control = supervisor.control
    assert control is not None
    first, steps = control.get("version"), control.get("metrics.total_steps")
    output = folder / "game.log"
    command = game.command(supervisor.config.application, f"ws://{_address(supervisor)}/ws", supervisor.config.folder)
    with output.open("wb") as file:
        client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    ticks = start_ticks(client.pid)
    deadline = time.monotonic() + game.seconds + _END if game.seconds is not None else None
    try:
        shown = 0.0
        while client.poll() is None and not supervisor.stopping:
            supervisor.turn()
            if supervisor.children.fatal is not None:
                raise SupervisorError(supervisor.children.fatal.reason)
            if time.monotonic() - shown >= 0.5:
                shown = time.monotonic()
                show(control)
            if deadline is not None and time.monotonic() > deadline:
                raise SupervisorError(f"the game did not end within {_END:g} s after its time")
        if game.seconds is None and client.poll() is None:
            # Ctrl-C is the ordinary end of an endless game: it still says what came of it.
            process_tree.send((client.pid, ticks), signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                client.wait(5.0)
    finally:
        if client.poll() is None:
            process_tree.kill(process_tree.members(client.pid, ticks))
            client.wait()
    if supervisor.stopping and (game.seconds is not None or client.returncode):
        return None
    lines = tail(output, 20)
    if client.returncode or not lines:
        text = "".join(f"\n  | {line}" for line in lines)
        raise SupervisorError(f"the game ended with status {client.returncode}{text}")
    return figures(json.loads(lines[-1]), control, first, steps)


def figures(client: dict[str, Any], control: Control, first: int, steps: int) -> dict[str, Any]:
    """What the client saw and what shared memory counted, as one object.

    `first` and `steps` are version and steps before the game. Errors are those of both sides.
    """
    lanes = [control.lane(index) for index in range(control.get("lanes"))]
    return {
        "decisions": client["decisions"],
        "decisions_per_s": client["decisions_per_s"],
        "latency_ms": {name: client["latency_ms"][name] for name in ("p50", "p99")},
        "send": client["send"],
        "wait": client["wait"],
        "completed": sum(lane["completed"] for lane in lanes),
        "pending": Snapshot(control).total("pending"),
        "errors": client["errors"] + sum(lane["errors"] for lane in lanes),
        "model_version": {"first": first, "last": control.get("version")},
        "training_steps": control.get("metrics.total_steps") - steps,
        "mean_reward": {name: client["mean_reward"][name] for name in ("first_quarter", "last_quarter")},
    }


class ProgressLine:
    """One line that is written over again: version, decisions per second, loss, reward, buffer."""

    def __init__(self) -> None:
        self._before: tuple[float, int] | None = None
        self._rate = 0.0
        self._printed = 0.0

    def __call__(self, control: Control) -> None:
        """Write it to standard error: over the last one on a terminal, else a new one every 5 s."""
        now = time.monotonic()
        decided = sum(control.get(f"lane.{index}.decided") for index in range(control.get("lanes")))
        if self._before is not None:
            self._rate = (decided - self._before[1]) / max(1e-9, now - self._before[0])
        self._before = (now, decided)
        if sys.stderr.isatty():
            sys.stderr.write("\r" + self.text(control) + "\x1b[K")
            sys.stderr.flush()
        elif now - self._printed >= 5.0:
            self._printed = now
            print(self.text(control), file=sys.stderr, flush=True)

    def text(self, control: Control) -> str:
        """The line."""
        snapshot = Snapshot(control)
        return (
            f"version {control.get('version')}  {self._rate:.0f} decisions/s"
            f"  loss {control.get('metrics.average_loss'):.3f}  reward {control.get('metrics.mean_reward'):+.3f}"
            f"  buffer {snapshot.size}/{snapshot.total_capacity}  pending {snapshot.total('pending')}"
        )


def quiet_logging(path: Path | None = None) -> None:
    """Keep the supervisor's events off the terminal; errors are reported by whoever catches them."""
    handler: logging.Handler = logging.NullHandler() if path is None else logging.FileHandler(path)
    logging.getLogger().handlers[:] = [handler]
