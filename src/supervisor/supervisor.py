"""The supervisor of one instance: a lock, the segments, two children and a loop.

Signal handlers only set a flag; the loop acts on it. It never imports torch: the segments are created by a
short-lived process. If the supervisor is killed, the children run on and the next `up` adopts them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..shared.configuration.config import Config, parse
from ..shared.errors import LayoutMismatch
from ..shared.memory import layout
from ..shared.memory.control import Control
from ..shared.memory.ownership import OWN, be_private, own_folder, users_umask
from ..shared.memory.processes import own_identity
from ..shared.memory.segments import check_instance
from ..shared.rate_limit import RateLimit
from . import cleanup, creation, process_tree
from .child import Child, Probe
from .creation import StartFailed
from .display import status
from .lock import InstanceLock
from .logfile import LogFile
from .notify import Notifier
from .operate import RESTART_SIGNALS
from .probes import ServerProbe, TrainerProbe

log = logging.getLogger(__name__)

_TURN = 0.2
"""Longest wait of the loop, seconds; a death or a signal ends it at once."""
_EAGER_TURN = 0.02
"""The same while somebody waits for a child to be ready."""
_GAP = 2.0
"""Seconds between two turns from which the supervisor itself must have stood still."""


class Supervisor:
    """Starts, watches and stops one instance.

    `fresh` starts with empty rings, `keep` keeps them at the end. `config_file` is where the configuration was read.
    Raises InstanceBusy at `open` if another supervisor lives. No error of the file system ends it.
    """

    def __init__(
        self, instance: str, config: Config, fresh: bool = False, keep: bool = True, config_file: str = ""
    ) -> None:
        self.instance = check_instance(instance)
        self.config = config
        self.fresh = fresh
        self.keep = keep
        self.config_file = config_file
        self.folder = Path(config.data_dir).absolute() / instance
        self.control: Control | None = None
        self.children: list[Child] = []
        self.adopted = False
        self.detached = False
        """True if standard error is the log file of this process."""
        self.found = ""
        """What the data folder had to go on with, in words."""
        self.notes: list[str] = []
        """What was set aside or left out of it, one line each."""
        self.not_kept = ""
        """After `close`: why shared memory was left in place."""
        self._was_ready = False
        self._disk_errors = 0
        self._warn = RateLimit(60.0)
        self._lock: InstanceLock | None = None
        self._stops = 0
        self._restarts: list[str] = []
        self._wakeup, self._wake = socket.socketpair()
        self._wakeup.setblocking(False)
        self._wake.setblocking(False)
        self._last_turn = 0.0
        self._notifier = Notifier()
        self._own_log = LogFile(
            self.folder / "logs" / "supervisor.log", config.supervisor.log_max_bytes, config.supervisor.log_files
        )

    @property
    def port(self) -> int:
        """Port of the bundled server, 0 without it."""
        return 0 if self.config.inference.command.strip() else self.config.inference.port

    @property
    def stopping(self) -> bool:
        """True once a signal asked for the end."""
        return self._stops > 0

    def handle_signals(self, hangup: bool = False) -> None:
        """Let SIGTERM and SIGINT end the loop and SIGUSR1 and SIGUSR2 restart a child. From the main thread only.

        `hangup`: the end of the terminal ends it too.
        """
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_stop)
        for name, number in RESTART_SIGNALS.items():
            signal.signal(number, lambda *_, name=name: self._restarts.append(name))
        signal.signal(signal.SIGHUP, self._note_stop if hangup else signal.SIG_IGN)

    def _note_stop(self, *_: object) -> None:
        self._stops += 1

    def request_stop(self) -> None:
        """Ask the loop to end."""
        self._stops += 1

    def open(self) -> None:
        """Take the lock, adopt a living instance or create a new one, and start the children.

        Raises InstanceBusy, or StartFailed with the message of whoever could not create the segments.
        """
        be_private(self.config.supervisor.mode)
        self._lock = InstanceLock(self.instance)
        try:
            self.control = self._adopt() or self._create()
        except BaseException:
            # Nothing of what is there now is ours to put away.
            self._lock.release()
            self._lock = None
            raise
        pid, ticks = own_identity()
        own_folder(self.folder)
        self.control.set("supervisor.pid", pid)
        self.control.set("supervisor.start_ticks", ticks)
        self.control.set("supervisor.port", self.port)
        self.control.set("command.discard", 0)
        self._make_children(self.control)
        now = time.monotonic()
        for child in self.children:
            prefix = f"process.{child.name}"
            if not (
                self.adopted
                and child.adopt(
                    *process_tree.child(self.control, child.name),
                    self.control.get(f"{prefix}.started_ns"),
                    self.control.get(f"{prefix}.restarts"),
                )
            ):
                child.start(now)
        self._last_turn = now
        if self.detached:
            self._own_log.hold(sys.stderr.fileno())
        self._show()

    def _adopt(self) -> Control | None:
        """The control segment of an instance that goes on: some of its processes live, or all died of a crash.

        After a crash of everything it is taken up again only with the settings it had; else None.
        """
        try:
            control = status.open_control(self.instance, writable=True, whose=OWN)
            if control is None:
                return None
            Control.attach(self.instance, writable=False).close()  # compares the whole header with the schema
            schema = control.schema
        except LayoutMismatch as error:
            log.warning("%s", error)
            return None
        pids = status.living(control)
        running = parse(schema["config"], f"instance {self.instance!r}", schema["folder"])
        if not pids and not creation.same_settings(running, self.config):
            control.close()
            return None
        if not creation.same_settings(running, self.config):
            log.warning("the living processes keep the settings that they were started with (`ctl down` ends them)")
        self.config = running
        self.folder = Path(schema["data_dir"])
        self.config_file = schema.get("config_file", "")
        self.adopted = True
        self.found = f"version {control.get('version')} from shared memory"
        if pids:
            log.info("instance %r lives on without a supervisor: adopting it", self.instance)
        else:
            log.info("instance %r was left in shared memory by a crash: taking it up again", self.instance)
            self.config = creation.with_free_port(self.config)
        return control

    def _create(self) -> Control:
        users = status.users(self.instance)
        if users:
            raise StartFailed(
                f"instance {self.instance!r} cannot be created anew: {', '.join(users)} of it are still in use"
                " by a process that has no supervisor; stop that process first"
            )
        try:
            for line in cleanup.put_away(self.instance):
                log.info("left by a crash: %s", line)
        except cleanup.NotKept as error:
            raise StartFailed(str(error)) from None
        self.config = creation.with_free_port(self.config)
        is_new = creation.is_new(self.folder)
        wanted = creation.Wanted(self.instance, self.config, self.fresh, self.config_file)
        try:
            self.notes = creation.create(wanted, creation.environment(self.instance), self._wait_for_creator)
        except StartFailed:
            # What a killed creator left; whoever made an instance of this name meanwhile is spared.
            with contextlib.suppress(cleanup.NotKept):
                cleanup.put_away(self.instance, keep=False)
            raise
        for line in self.notes:
            log.warning("%s", line)
        control = Control.attach(self.instance)
        version = control.get("version")
        rings = "; the rings start empty" if self.fresh else ""
        self.found = "new" if is_new else f"version {version} kept{rings}" if version else "no version kept"
        return control

    def _wait_for_creator(self, pidfd: int) -> bool:
        self._wait([pidfd])
        return self.stopping

    def _make_children(self, control: Control) -> None:
        commands = creation.child_commands(self.instance, self.config)
        probes: dict[str, Probe] = {"trainer": TrainerProbe(control), "inference": ServerProbe(control)}
        settings = self.config.supervisor
        self.children = [
            Child(
                name,
                command,
                creation.environment(self.instance),
                LogFile(self.folder / "logs" / f"{name}.log", settings.log_max_bytes, settings.log_files),
                settings,
                probes[name],
                users_umask(),
            )
            for name, command in commands.items()
        ]

    @property
    def ready(self) -> bool:
        """True while every child is ready."""
        return all(child.state == "running" for child in self.children)

    @property
    def fatal(self) -> Child | None:
        """The first child that was given up."""
        return next((child for child in self.children if child.state == "fatal"), None)

    def wait_ready(self) -> None:
        """Turn until every child is ready. Raises StartFailed if one is given up, or a signal asks for the end."""
        while not self.ready:
            self.turn()
            if self.fatal is not None:
                raise StartFailed(self.fatal.reason)
            if self.stopping:
                raise StartFailed("stopped before everything was ready")
        self._was_ready = True

    def turn(self) -> None:
        """One turn of the loop: wait for a death, a signal or the end of the turn, then act."""
        with self._surviving():
            self._turn()

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """Log and count an error of the system instead of ending: the next turn tries again."""
        try:
            yield
        except OSError as error:
            self._disk_errors += 1
            self._warn.warning(log, "survived: %r", error)
            time.sleep(_EAGER_TURN)

    def _turn(self) -> None:
        self._wait([child.pidfd for child in self.children if child.pidfd >= 0])
        now = time.monotonic()
        self._tell_deaths()
        if now - self._last_turn > _GAP:
            log.warning("nothing was watched for %.1f s", now - self._last_turn)
            for child in self.children:
                child.excuse(now)
        self._last_turn = now
        while self._restarts:
            name = self._restarts.pop(0)
            for child in self.children:
                if child.name == name:
                    log.info("%s: restart asked for", name)
                    child.restart(now)
        for child in self.children:
            with self._surviving():
                child.turn(now)
            child.output.rotate()
        self._own_log.rotate()
        if self.detached and self._own_log.is_lost:
            self._own_log.take_over(sys.stderr.fileno())
        self._show()
        self._notifier.beat(", ".join(f"{child.name} {child.state}" for child in self.children))

    def _tell_deaths(self) -> None:
        """Show a death before anything is done about it: ending the rest of a group takes a while."""
        for child in self.children:
            if self.control is not None and child.state in ("starting", "running") and not child.alive:
                self.control.set(f"process.{child.name}.state", layout.STATES.index("backoff"))

    def run(self) -> None:
        """Turn until a signal asks for the end."""
        self._notifier.send(ready=1, mainpid=os.getpid())
        while not self.stopping:
            self.turn()

    def _wait(self, pidfds: list[int]) -> None:
        poll = select.poll()
        for descriptor in (self._wakeup.fileno(), *pidfds):
            poll.register(descriptor, select.POLLIN)
        turn = _EAGER_TURN if any(child.state == "starting" for child in self.children) else _TURN
        due = min((child.due for child in self.children), default=math.inf) - time.monotonic()
        poll.poll(max(0.0, min(turn, due)) * 1000)
        try:
            while self._wakeup.recv(64):
                pass
        except BlockingIOError:
            pass

    def _show(self) -> None:
        """Write what is known of the children into the control segment."""
        control = self.control
        if control is None:
            return
        for child in self.children:
            prefix = f"process.{child.name}"
            control.set(f"{prefix}.pid", child.pid)
            control.set(f"{prefix}.start_ticks", child.ticks)
            control.set(f"{prefix}.state", layout.STATES.index(child.state))
            control.set(f"{prefix}.restarts", child.restarts)
            control.set(f"{prefix}.started_ns", child.started_ns)
        outputs = [self._own_log, *(child.output for child in self.children)]
        control.set("supervisor.unwritten", sum(bool(output.trouble) for output in outputs))
        control.set("supervisor.disk_errors", self._disk_errors + sum(output.failures for output in outputs))
        control.add("supervisor.progress")
        control.set("supervisor.progress_ns", time.monotonic_ns())

    def close(self) -> None:
        """Stop the children, keep what was learned, remove the segments and give the lock back. Idempotent.

        A second signal while this runs kills what has not ended yet. If what was learned cannot be kept, shared memory
        is left in place and `not_kept` says why.
        """
        asked = self._stops
        self._notifier.send(stopping=1)
        spared = self._let_live()
        for child in self.children:
            child.stop(time.monotonic())
        while any(child.state == "stopping" for child in self.children):
            self.turn()
            if self._stops > asked:
                for child in self.children:
                    child.hurry()
        discard = False
        if self.control is not None:
            discard = bool(self.control.get("command.discard"))
            self.control.close()
            self.control = None
        if self._lock is not None:
            try:
                if not spared:
                    self._put_away(self.keep and not discard)
            finally:
                self._lock.release()
                self._lock = None
        for output in (self._own_log, *(child.output for child in self.children)):
            output.release()

    def _let_live(self) -> bool:
        """After a failed start: leave alone what lived before it. True if there is something that did."""
        if self._was_ready or self.stopping:
            return False
        spared = [child for child in self.children if child.adopted and child.alive]
        self.children = [child for child in self.children if child not in spared]
        for child in spared:
            log.warning("%s: process %d lived before and is left alone, without a supervisor", child.name, child.pid)
        return bool(spared)

    def _put_away(self, keep: bool) -> None:
        try:
            for line in cleanup.put_away(self.instance, keep, patience=cleanup.RELEASE):
                log.info("%s", line)
        except cleanup.NotKept as error:
            self.not_kept = str(error)
            log.error("%s", error)

    def __enter__(self) -> Supervisor:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
