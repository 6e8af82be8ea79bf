"""One process of the bundled server: started, watched, started again."""

from __future__ import annotations

import logging
import signal
import subprocess

from ...shared.configuration.config import SupervisorConfig
from ...shared.memory.control import Control
from ...shared.memory.processes import module_command

log = logging.getLogger(__name__)

_STABLE = 10.0
"""Seconds of running after which earlier deaths are forgotten."""
_HUNG_SHARE = 0.75
"""Of `supervisor.hang_timeout`: the supervisor replaces all of them at once, so the one that hangs goes earlier."""


class Worker:
    """Keeps one process alive. `turn(now)` acts on what is seen; `now` is monotonic seconds.

    It serves on `listener` and ends by itself once nobody holds the other end of `lifeline`.
    """

    def __init__(self, number: int, control: Control, listener: int, lifeline: int, settings: SupervisorConfig) -> None:
        self.number = number
        self._control = control
        self._settings = settings
        passed = "--listener", str(listener), "--lifeline", str(lifeline)
        self._command = module_command("tandem.inference_proc", "--instance", control.instance, *passed)
        self._passed = listener, lifeline
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._failures = 0
        self._due = 0.0

    @property
    def is_given_up(self) -> bool:
        """True if it died too often in a row."""
        return self._failures > self._settings.max_restarts

    @property
    def alive(self) -> bool:
        """True while its process lives."""
        return self._process is not None and self._process.poll() is None

    def turn(self, now: float) -> None:
        """Start the process if it is time to, and replace one that died or hangs."""
        if self._process is None:
            if now >= self._due:
                self._start(now)
        elif (status := self._process.poll()) is not None:
            self._died(now, f"killed by signal {-status}" if status < 0 else f"ended with status {status}")
        else:
            silent = self._silent(now)
            if silent > _HUNG_SHARE * self._settings.hang_timeout:
                log.error("worker %d: process %d made no progress for %.1f s; killed", self.number, self.pid, silent)
                self._process.kill()
            elif now - self._started > self._settings.start_timeout and not self._serves():
                log.error("worker %d: process %d was not ready in time; killed", self.number, self.pid)
                self._process.kill()
            elif now - self._started > _STABLE:
                self._failures = 0

    @property
    def pid(self) -> int:
        """Its process id; 0 without one."""
        return 0 if self._process is None else self._process.pid

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end."""
        if self.alive:
            assert self._process is not None
            self._process.send_signal(number)
            # A stopped process would never see the request.
            self._process.send_signal(signal.SIGCONT)

    def _start(self, now: float) -> None:
        try:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, pass_fds=self._passed)
        except OSError as error:
            self._died(now, f"cannot be started: {error}")
            return
        self._started = now
        log.info("worker %d: started as process %d", self.number, self.pid)

    def _died(self, now: float, how: str) -> None:
        self._failures += 1
        # The first restart is at once; the pauses after it double.
        settings, pause = self._settings, 0.0
        if self._failures > 1:
            pause = min(settings.backoff_first * 2 ** (self._failures - 2), settings.backoff_limit)
        log.error("worker %d: process %d %s; started again in %g s", self.number, self.pid, how, pause)
        self._process = None
        self._due = now + pause

    def _serves(self) -> bool:
        return self._lane() >= 0

    def _lane(self) -> int:
        get, pid = self._control.get, self.pid
        return next((lane for lane in range(get("lanes")) if get(f"lane.{lane}.ready") == pid), -1)

    def _silent(self, now: float) -> float:
        """Seconds since its main loop turned; 0 while it starts."""
        lane = self._lane()
        if lane < 0:
            return 0.0
        turned: int = self._control.get(f"lane.{lane}.progress_ns")
        return now - max(turned / 1e9, self._started)
