"""The supervisor of one instance: a lock, the segments, two children and a loop.

Signal handlers only set a flag; the loop acts on it. It never imports torch: the segments are created by a
short-lived process. If the supervisor is killed, the children run on and the next `up` adopts them.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..shared import layout
from ..shared.config import Config, parse
from ..shared.control import Control
from ..shared.errors import LayoutMismatch, SupervisorError
from ..shared.ownership import OWN, be_private, own_folder, users_umask
from ..shared.processes import module_command, own_identity
from ..shared.segments import check_instance, remove_instance
from . import family, orphans, view
from .child import Child, Probe
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


class StartFailed(SupervisorError):
    """The instance did not come up; the message holds the reason and the last lines of the log."""


class Supervisor:
    """Starts, watches and stops one instance.

    `fresh` starts with empty rings, `keep` keeps them at the end. Raises InstanceBusy at `open` if another supervisor
    lives.
    """

    def __init__(self, instance: str, config: Config, fresh: bool = False, keep: bool = True) -> None:
        self.instance = check_instance(instance)
        self.config = config
        self.fresh = fresh
        self.keep = keep
        self.folder = Path(config.data_dir).absolute() / instance
        self.control: Control | None = None
        self.children: list[Child] = []
        self.adopted = False
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
            self._lock.release()
            raise
        pid, ticks = own_identity()
        own_folder(self.folder)
        self.control.set("supervisor.pid", pid)
        self.control.set("supervisor.start_ticks", ticks)
        self.control.set("supervisor.port", self.port)
        self._make_children(self.control)
        now = time.monotonic()
        for child in self.children:
            prefix = f"process.{child.name}"
            if not (
                self.adopted
                and child.adopt(
                    *family.child(self.control, child.name),
                    self.control.get(f"{prefix}.started_ns"),
                    self.control.get(f"{prefix}.restarts"),
                )
            ):
                child.start(now)
        self._last_turn = now
        self._show()

    def _adopt(self) -> Control | None:
        """The control segment of an instance that goes on: some of its processes live, or all died of a crash.

        After a crash of everything it is taken up again only with the settings it had; else None.
        """
        try:
            control = view.open_control(self.instance, writable=True, whose=OWN)
            if control is None:
                return None
            Control.attach(self.instance, writable=False).close()  # compares the whole header with the schema
            schema = control.schema
        except LayoutMismatch as error:
            log.warning("%s", error)
            return None
        pids = view.living(control)
        running = parse(schema["config"], f"instance {self.instance!r}", schema["folder"])
        if not pids and not self._same_settings(running):
            control.close()
            return None
        if not self._same_settings(running):
            log.warning("the living processes keep the settings that they were started with (`ctl down` ends them)")
        self.config = running
        self.folder = Path(schema["data_dir"])
        self.adopted = True
        if pids:
            log.info("instance %r lives on without a supervisor: adopting it", self.instance)
        else:
            log.info("instance %r was left in shared memory by a crash: taking it up again", self.instance)
            self._choose_port()
        return control

    def _same_settings(self, running: Config) -> bool:
        asked = self.config
        if asked.inference.port == 0:
            asked = dataclasses.replace(
                asked, inference=dataclasses.replace(asked.inference, port=running.inference.port)
            )
        return dataclasses.replace(running, data_dir="") == dataclasses.replace(asked, data_dir="")

    def _create(self) -> Control:
        users = view.users(self.instance)
        if users:
            raise StartFailed(
                f"instance {self.instance!r} cannot be created anew: {', '.join(users)} of it are still in use"
                " by a process that has no supervisor; stop that process first"
            )
        for line in orphans.put_away(self.instance):
            log.info("left by a crash: %s", line)
        self._choose_port()
        command = module_command("tandem.shared.instance", "--instance", self.instance)
        command += ["--folder", self.config.folder, *(["--fresh"] if self.fresh else [])]
        with tempfile.TemporaryFile("w+") as wanted, tempfile.TemporaryFile() as output:
            json.dump(self.config.to_dict(), wanted)
            wanted.seek(0)
            creator = subprocess.Popen(
                command, stdin=wanted, stdout=output, stderr=output, env=self._environment(),
                start_new_session=True,
            )  # fmt: skip
            pidfd = os.pidfd_open(creator.pid)
            while creator.poll() is None:
                self._wait([pidfd])
                if self.stopping:
                    creator.kill()
            os.close(pidfd)
            if creator.returncode:
                output.seek(0)
                message = output.read().decode("utf-8", "replace").strip()
                remove_instance(self.instance)
                if self.stopping:
                    raise StartFailed("stopped before the instance was created")
                raise StartFailed(message or f"the instance could not be created (status {creator.returncode})")
        return Control.attach(self.instance)

    def _choose_port(self) -> None:
        """Replace port 0 by a free one and refuse a port that is taken, before anything is started."""
        inference = self.config.inference
        if inference.command.strip():
            return
        with socket.socket(socket.AF_INET6 if ":" in inference.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((inference.host, inference.port))
            except OSError as error:
                raise StartFailed(
                    f"the server cannot listen on {inference.host} port {inference.port}: {error.strerror};"
                    " choose another with --port (0: any free one)"
                ) from None
            port = probe.getsockname()[1]
        self.config = dataclasses.replace(self.config, inference=dataclasses.replace(inference, port=port))

    def _environment(self) -> dict[str, str]:
        # A server of the user's own, such as `uvicorn app:app`, runs in the environment that the supervisor runs in.
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        return {**os.environ, "PATH": path, "TANDEM_INSTANCE": self.instance, "PYTHONUNBUFFERED": "1"}

    def _make_children(self, control: Control) -> None:
        commands = child_commands(self.instance, self.config)
        probes: dict[str, Probe] = {"trainer": TrainerProbe(control), "inference": ServerProbe(control)}
        settings = self.config.supervisor
        self.children = [
            Child(
                name,
                command,
                self._environment(),
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

    def turn(self) -> None:
        """One turn of the loop: wait for a death, a signal or the end of the turn, then act."""
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
            child.turn(now)
            child.output.rotate()
        self._own_log.rotate()
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
        control.add("supervisor.progress")
        control.set("supervisor.progress_ns", time.monotonic_ns())

    def close(self) -> None:
        """Stop the children, remove the segments and give the lock back. Idempotent.

        A second signal while this runs kills what has not ended yet.
        """
        asked = self._stops
        self._notifier.send(stopping=1)
        for child in self.children:
            child.stop(time.monotonic())
        while any(child.state == "stopping" for child in self.children):
            self.turn()
            if self._stops > asked:
                for child in self.children:
                    child.hurry()
        if self.control is not None:
            self.control.close()
            self.control = None
        if self._lock is not None:
            try:
                for line in orphans.put_away(self.instance, self.keep):
                    log.info("%s", line)
            finally:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> Supervisor:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def child_commands(instance: str, config: Config) -> dict[str, list[str]]:
    """The command lines of the children that this configuration asks for."""
    commands = {}
    if config.trainer.enabled:
        commands["trainer"] = module_command("tandem.trainer_proc", "--instance", instance)
    command = config.inference.command.strip()
    if not command:
        commands["inference"] = module_command("tandem.inference_proc", "--instance", instance)
    elif command != "none":
        commands["inference"] = shlex.split(command)
    return commands
