"""The supervisor of one instance: a lock, the segments, two children and a loop.

Signal handlers only set a flag; the loop acts on it. It never imports torch: the segments are created by a
short-lived process. If the supervisor is killed, the children run on and the next `up` adopts them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ..shared.configuration.config import Config
from ..shared.memory.control import Control
from ..shared.memory.ownership import be_private, own_folder
from ..shared.memory.processes import own_identity
from ..shared.memory.segments import check_instance
from ..shared.rate_limit import RateLimit
from . import cleanup
from .children.group import Children
from .children.logfile import LogFile
from .creation import StartFailed, Wanted
from .lock import InstanceLock
from .notify import Notifier
from .opening import Opened, adopt, create
from .signals import Signals

log = logging.getLogger(__name__)

_TURN = 0.2
"""Longest wait of the loop, seconds; a death or a signal ends it at once."""
_EAGER_TURN = 0.02
"""The same while somebody waits for a child to be ready."""
_GAP = 2.0
"""Seconds between two turns from which the supervisor itself must have stood still."""


class Supervisor:
    """Starts, watches and stops one instance.

    `fresh` starts with empty rings, `save` saves them at the end. `config_file` is where the configuration was read.
    Raises InstanceBusy at `open` if another supervisor lives. No error of the file system ends it.
    """

    def __init__(
        self, instance: str, config: Config, fresh: bool = False, save: bool = True, config_file: str = ""
    ) -> None:
        self.wanted = Wanted(check_instance(instance), config, fresh, config_file)
        self.save = save
        self.opened: Opened | None = None
        self.control: Control | None = None
        self.children = Children()
        self.detached = False
        """True if standard error is the log file of this process."""
        self.not_saved = ""
        """After `close`: why shared memory was left in place."""
        self._was_ready = False
        self._disk_errors = 0
        self._warn = RateLimit(60.0)
        self._lock: InstanceLock | None = None
        self._signals = Signals()
        self._last_turn = 0.0
        self._notifier = Notifier()
        self._own_log = _log_of(self.config, self.folder, "supervisor")

    @property
    def instance(self) -> str:
        """The instance's name."""
        return self.wanted.instance

    @property
    def config(self) -> Config:
        """The settings in force: those of an instance that was adopted, else those that were asked for."""
        return self.wanted.config

    @property
    def folder(self) -> Path:
        """The instance's own folder."""
        if self.opened is not None:
            return self.opened.folder
        return Path(self.config.data_dir).absolute() / self.instance

    @property
    def port(self) -> int:
        """Port of the bundled server, 0 without it."""
        return 0 if self.config.inference.command.strip() else self.config.inference.port

    @property
    def stopping(self) -> bool:
        """True once a signal asked for the end."""
        return self._signals.stops > 0

    def handle_signals(self, hangup: bool = False) -> None:
        """Let SIGTERM and SIGINT end the loop and SIGUSR1 and SIGUSR2 restart a child. From the main thread only.

        `hangup`: the end of the terminal ends it too.
        """
        self._signals.handle(hangup)

    def request_stop(self) -> None:
        """Ask the loop to end."""
        self._signals.note_stop()

    def open(self) -> None:
        """Take the lock, adopt a living instance or create a new one, and start the children.

        Raises InstanceBusy, or StartFailed with the message of whoever could not create the segments.
        """
        be_private(self.config.supervisor.mode)
        self._lock = InstanceLock(self.instance)
        try:
            self.opened = opened = adopt(self.wanted) or create(self.wanted, self.folder, self._wait_for_creator)
            self.wanted, self.control = opened.wanted, opened.control
        except BaseException:
            # Nothing of what is there now is ours to save or remove.
            self._lock.release()
            self._lock = None
            raise
        pid, ticks = own_identity()
        own_folder(self.folder)
        self.control.set("supervisor.pid", pid)
        self.control.set("supervisor.start_ticks", ticks)
        self.control.set("supervisor.port", self.port)
        self.control.set("command.discard", 0)
        self.children.make(self.wanted, self.control, partial(_log_of, self.config, self.folder))
        self.children.start(self.control, opened.adopted)
        self._last_turn = time.monotonic()
        if self.detached:
            self._own_log.hold(sys.stderr.fileno())
        self._show()

    def _wait_for_creator(self, pidfd: int) -> bool:
        self._wait([pidfd])
        return self.stopping

    def wait_ready(self) -> None:
        """Turn until every child is ready. Raises StartFailed if one is given up, or a signal asks for the end."""
        while not self.children.ready:
            self.turn()
            if self.children.fatal is not None:
                raise StartFailed(self.children.fatal.reason)
            if self.stopping:
                raise StartFailed("stopped before everything was ready")
        self._was_ready = True

    def turn(self) -> None:
        """One turn of the loop: wait for a death, a signal or the end of the turn, then act."""
        with self._handling():
            self._turn()

    @contextlib.contextmanager
    def _handling(self) -> Iterator[None]:
        """Log and count an error of the system instead of ending: the next turn tries again."""
        try:
            yield
        except OSError as error:
            self._disk_errors += 1
            self._warn.warning(log, "handled: %r", error)
            time.sleep(_EAGER_TURN)

    def _turn(self) -> None:
        self._wait([child.pidfd for child in self.children if child.pidfd >= 0])
        now = time.monotonic()
        if self.control is not None:
            self.children.show_deaths(self.control)
        if now - self._last_turn > _GAP:
            log.warning("nothing was watched for %.1f s", now - self._last_turn)
            for child in self.children:
                child.measure_anew(now)
        self._last_turn = now
        while self._signals.restarts:
            name = self._signals.restarts.pop(0)
            for child in self.children.named(name):
                log.info("%s: restart asked for", name)
                child.restart(now)
        for child in self.children:
            with self._handling():
                child.turn(now)
            child.output.rotate()
        self.children.keep_listening()
        self._own_log.rotate()
        if self.detached and self._own_log.is_lost:
            self._own_log.take_over(sys.stderr.fileno())
        self._show()
        self._notifier.beat(", ".join(f"{child.name} {child.state}" for child in self.children))

    def run(self) -> None:
        """Turn until a signal asks for the end."""
        self._notifier.send(ready=1, mainpid=os.getpid())
        while not self.stopping:
            self.turn()

    def _wait(self, pidfds: list[int]) -> None:
        turn = _EAGER_TURN if self.children.any("starting") else _TURN
        due = min((child.due for child in self.children), default=math.inf) - time.monotonic()
        self._signals.wait(pidfds, min(turn, due))

    def _show(self) -> None:
        """Write what is known of the children into the control segment."""
        control = self.control
        if control is None:
            return
        self.children.show(control)
        outputs = [self._own_log, *(child.output for child in self.children)]
        control.set("supervisor.unwritten", sum(bool(output.fault) for output in outputs))
        control.set("supervisor.disk_errors", self._disk_errors + sum(output.failures for output in outputs))
        control.add("supervisor.progress")
        control.set("supervisor.progress_ns", time.monotonic_ns())

    def close(self) -> None:
        """Stop the children, save what was learned, remove the segments and give the lock back. Idempotent.

        A second signal while this runs kills what has not ended yet. If what was learned cannot be saved, shared memory
        is left in place and `not_saved` says why.
        """
        asked = self._signals.stops
        self._notifier.send(stopping=1)
        # After a failed start what lived before it is left alone.
        spared = not (self._was_ready or self.stopping) and self.children.spare_the_adopted()
        for child in self.children:
            child.stop(time.monotonic())
        while self.children.any("stopping"):
            self.turn()
            if self._signals.stops > asked:
                for child in self.children:
                    child.cut_short()
        self.children.close()
        discard = False
        if self.control is not None:
            discard = bool(self.control.get("command.discard"))
            self.control.close()
            self.control = None
        if self._lock is not None:
            try:
                if not spared:
                    self.not_saved = _clean_up(self.instance, self.save and not discard)
            finally:
                self._lock.release()
                self._lock = None
        for output in (self._own_log, *(child.output for child in self.children)):
            output.release()

    def __enter__(self) -> Supervisor:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _log_of(config: Config, folder: Path, name: str) -> LogFile:
    settings = config.supervisor
    return LogFile(folder / "logs" / f"{name}.log", settings.log_max_bytes, settings.log_files)


def _clean_up(instance: str, save: bool) -> str:
    """Remove the segments, with what was learned saved first if `save`; the reason if they had to be left in place."""
    try:
        for line in cleanup.clean_up(instance, save, patience=cleanup.RELEASE):
            log.info("%s", line)
    except cleanup.NotSaved as error:
        log.error("%s", error)
        return str(error)
    return ""
