"""One supervised process: start, watch, stop, start again.

A child leads a session of its own and writes to its log file, so it outlives its supervisor unharmed; the next
supervisor adopts it. Its death is seen through a pidfd. Whether it is ready and whether its main loop makes progress
is asked of a probe, which reads shared memory: a process can be alive and stuck.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from ...shared.configuration.config import SupervisorConfig
from ...shared.memory.processes import start_ticks
from . import process_tree
from .logfile import LogFile

log = logging.getLogger(__name__)

_STABLE = 10.0
"""Seconds of running after which earlier deaths are forgotten."""
_WEIGH_EVERY = 1.0
"""Seconds between two looks at the memory of a child."""


class Probe(Protocol):
    """What shared memory says about a process."""

    def ready(self, pid: int) -> bool:
        """True once the process that is the child `pid`, or belongs to it, serves."""

    def progress_ns(self, pid: int) -> int | None:
        """Last turn of its main loop on the monotonic clock, nanoseconds; None if it does not report any."""


# Many attributes: what was asked for, what is seen of the process, and when each state ends.
class Child:
    """One child. `turn(now)` moves it from state to state (the names are layout.STATES); `now` is monotonic seconds."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        output: LogFile,
        settings: SupervisorConfig,
        probe: Probe,
        umask: int = -1,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self.output = output
        self.settings = settings
        self.probe = probe
        self.umask = umask
        """What it is started with; -1: the supervisor's own."""
        self.inherited: tuple[int, ...] = ()
        """Descriptors that it is started with, under the same numbers."""
        self.state = "stopped"
        self.pid = 0
        self.ticks = 0
        self.started_ns = 0
        self.restarts = 0
        self.reason = ""
        """Why it is not running, with the last lines of its log when it died."""
        self.pidfd = -1
        self.adopted = False
        """True while the process is one that an earlier supervisor started."""
        self._process: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._running_since = 0.0
        self._watched_since = 0.0
        self._start_again = False
        self._next_start = 0.0
        self._kill_at = 0.0
        self._next_weighing = 0.0
        self._stop_tree: list[process_tree.Identity] = []
        self._log_start = 0

    @property
    def alive(self) -> bool:
        """True while the process lives."""
        return self.pidfd >= 0 and not _has_ended(self.pidfd)

    @property
    def due(self) -> float:
        """When the next `turn` has something to do that no pidfd announces, monotonic seconds; infinity: never."""
        return self._next_start if self.state == "backoff" else math.inf

    def start(self, now: float) -> None:
        """Start the process; if that fails it counts as a death. A log that cannot be written is none."""
        try:
            descriptor = self.output.open_or_discard()
        except OSError as error:
            self._failed(now, f"cannot be started: {error}")
            return
        self._log_start = self.output.size()
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
                umask=self.umask,
                pass_fds=self.inherited,
            )
        except OSError as error:
            self._failed(now, f"cannot be started: {error}")
            return
        finally:
            os.close(descriptor)
        try:
            self.pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            self._process.kill()
            self._reap()
            self._failed(now, f"cannot be watched: {error}")
            return
        self.pid = self._process.pid
        self.ticks = start_ticks(self.pid)
        self.started_ns = time.monotonic_ns()
        self.state = "starting"
        log.info("%s: started as process %d", self.name, self.pid)

    def adopt(self, pid: int, ticks: int, started_ns: int, restarts: int) -> bool:
        """Take over a living process of an earlier supervisor; False if it is gone."""
        descriptor = process_tree.open_process(pid, ticks)
        if descriptor is None:
            return False
        self.pidfd, self.pid, self.ticks = descriptor, pid, ticks
        self.started_ns, self.restarts = started_ns, restarts
        self.adopted = True
        self.output.hold()
        self._log_start = self.output.size()
        self.state = "starting"
        log.info("%s: process %d adopted", self.name, pid)
        return True

    def turn(self, now: float) -> None:
        """Look at the process and act on what is seen."""
        if self.state == "starting":
            self._turn_starting(now)
        elif self.state == "running":
            self._turn_running(now)
        elif self.state == "backoff" and now >= self._next_start:
            self.restarts += 1
            self.start(now)
        elif self.state == "stopping":
            self._turn_stopping(now)

    def _turn_starting(self, now: float) -> None:
        if not self.alive:
            self._died(now, "before it was ready")
        elif self.probe.ready(self.pid):
            self.state = "running"
            self.reason = ""
            self._running_since = now
            log.info("%s: process %d is ready", self.name, self.pid)
        elif now - self.started_ns / 1e9 > self.settings.start_timeout:
            self._replace(now, f"was not ready within {self.settings.start_timeout:g} s")

    def _turn_running(self, now: float) -> None:
        if not self.alive:
            self._died(now, f"after {now - self._running_since:.1f} s of running")
            return
        if now - self._running_since > _STABLE:
            self._failures = 0
        progress = self.probe.progress_ns(self.pid)
        silent = now - max((progress or 0) / 1e9, self._running_since, self._watched_since)
        if progress is not None and silent > self.settings.hang_timeout:
            self._replace(now, f"made no progress for {silent:.1f} s")
        elif self.settings.memory_limit and now >= self._next_weighing:
            self._weigh(now)

    def _weigh(self, now: float) -> None:
        self._next_weighing = now + _WEIGH_EVERY
        megabytes = process_tree.own_memory(process_tree.members(self.pid, self.ticks)) / 1e6
        if megabytes > self.settings.memory_limit:
            self._replace(now, f"took {megabytes:.0f} MB of memory, more than {self.settings.memory_limit}")

    def _turn_stopping(self, now: float) -> None:
        left = self.alive or any(start_ticks(pid) == ticks for pid, ticks in self._stop_tree)
        if left and now < self._kill_at:
            return
        if left:
            log.warning("%s: not stopped within %g s; killed", self.name, self.settings.stop_grace)
        self._kill_tree(self._stop_tree)
        self._reap()
        self.state = "stopped"
        log.info("%s: stopped", self.name)
        if self._start_again:
            self._start_again = False
            self.restarts += 1
            self.start(now)

    def stop(self, now: float) -> None:
        """Ask the process and its group to end; `turn` kills what is left after the grace time."""
        if self.state in ("stopped", "stopping"):
            return
        self._stop_tree = []
        if not self.alive:
            self._reap()
            self.state = "stopped"
            return
        self._stop_tree = process_tree.members(self.pid, self.ticks)
        self._kill_at = now + self.settings.stop_grace
        self.state = "stopping"
        self._signal_group(signal.SIGTERM)
        # A stopped process would never see the request.
        self._signal_group(signal.SIGCONT)

    def cut_short(self) -> None:
        """Cut the grace time of a stop short."""
        self._kill_at = 0.0

    def restart(self, now: float) -> None:
        """Replace the process at an operator's word: past deaths are forgotten, a fatal state is left."""
        self._failures = 0
        self._start_again = True
        if self.state == "stopping":
            return
        self.stop(now)
        if self.state == "stopped":
            # Nothing was alive to be stopped.
            self.state = "stopping"

    def measure_anew(self, now: float) -> None:
        """Measure progress from now on: the supervisor itself, or the machine, stood still."""
        self._watched_since = now

    def _signal_group(self, number: signal.Signals) -> None:
        # Our own child is not reaped yet and an adopted one was alive just now: the group's number is still its own.
        if self.alive and self.pid > 1:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                process_tree.send((self.pid, self.ticks), number)
            except PermissionError:
                log.error("%s: process %d may not be signalled", self.name, self.pid)

    def _kill_tree(self, known: Sequence[process_tree.Identity] = ()) -> None:
        process_tree.kill(sorted({*process_tree.members(self.pid, self.ticks), *known}))

    def _replace(self, now: float, why: str) -> None:
        log.error("%s: process %d %s; killed", self.name, self.pid, why)
        self._kill_tree(process_tree.members(self.pid, self.ticks))
        self._reap()
        self._failed(now, why)

    def _died(self, now: float, when: str) -> None:
        # The rest of its group may still hold the port or the lane.
        self._kill_tree()
        status = self._reap()
        how = "ended"
        if status is not None:
            how = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        self._failed(now, f"{how} {when}")

    def _reap(self) -> int | None:
        status = None
        if self._process is not None:
            try:
                status = self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                log.error("%s: process %d does not die; it waits for a device", self.name, self.pid)
        if self.pidfd >= 0:
            if self._process is None:
                _has_ended(self.pidfd, wait=2.0)
            os.close(self.pidfd)
        self.pidfd, self._process, self.pid, self.ticks, self.adopted = -1, None, 0, 0, False
        return status

    def _failed(self, now: float, why: str) -> None:
        last = self.output.tail(10, self._log_start)
        self.reason = f"{self.name} {why}" + "".join(f"\n  | {line}" for line in last)
        self._failures += 1
        if self._failures > self.settings.max_restarts:
            self.state = "fatal"
            self.reason = f"{self.reason}\n{self.name} died {self._failures} times in a row; see {self.output.path}"
            log.error("fatal: %s", self.reason)
            return
        # The first restart is at once; the pauses after it double.
        pause = 0.0
        if self._failures > 1:
            pause = min(self.settings.backoff_first * 2 ** (self._failures - 2), self.settings.backoff_limit)
        self.state = "backoff"
        self._next_start = now + pause
        log.error("%s; started again %s", self.reason, f"in {pause:g} s" if pause else "at once")


def _has_ended(pidfd: int, wait: float = 0.0) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(wait * 1000))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
