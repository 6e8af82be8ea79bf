"""The children of one supervisor: made from the settings, shown in shared memory, stopped together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from ...shared.memory import layout
from ...shared.memory.control import Control
from ...shared.memory.ownership import users_umask
from .. import creation
from ..creation import Wanted
from . import process_tree
from .child import Child, Probe
from .logfile import LogFile
from .probes import ServerProbe, TrainerProbe
from .server_socket import ServerSocket

log = logging.getLogger(__name__)


class Children:
    """The processes that the settings ask for: none before `make`."""

    def __init__(self) -> None:
        self._all: list[Child] = []
        self._socket: ServerSocket | None = None

    def __iter__(self) -> Iterator[Child]:
        return iter(self._all)

    def make(self, wanted: Wanted, control: Control, log_of: Callable[[str], LogFile]) -> None:
        """Make those that the settings ask for; nothing is started. Raises MissingExtra or StartFailed."""
        server = ServerProbe(control)
        probes: dict[str, Probe] = {"trainer": TrainerProbe(control), **dict.fromkeys(layout.SERVERS, server)}
        environment, umask, settings = creation.environment(wanted.instance), users_umask(), wanted.config.supervisor
        self._all = [
            Child(name, command, environment, log_of(name), settings, probes[name], umask)
            for name, command in creation.child_commands(wanted.instance, wanted.config).items()
        ]
        workers = [child for child in self._all if child.name in layout.SERVERS]
        if len(workers) > 1:
            self._socket = ServerSocket(wanted.config.inference.host, wanted.config.inference.port)
            for child in workers:
                self._socket.give_to(child)

    def start(self, control: Control, adopted: bool) -> None:
        """Start each of them, or take over what lives of an instance that was adopted."""
        now = time.monotonic()
        for child in self._all:
            prefix = f"process.{child.name}"
            known = control.get(f"{prefix}.started_ns"), control.get(f"{prefix}.restarts")
            if not (adopted and child.adopt(*process_tree.child(control, child.name), *known)):
                child.start(now)

    @property
    def ready(self) -> bool:
        """True while every child is ready."""
        return all(child.state == "running" for child in self._all)

    @property
    def fatal(self) -> Child | None:
        """The first child that was given up."""
        return next((child for child in self._all if child.state == "fatal"), None)

    def any(self, state: str) -> bool:
        """True if one of them is in this state."""
        return any(child.state == state for child in self._all)

    def named(self, name: str) -> list[Child]:
        """Those of that name: one or none."""
        return [child for child in self._all if child.name == name]

    def spare_the_adopted(self) -> bool:
        """Leave alone what lived before this supervisor came. True if there is something that did."""
        spared = [child for child in self._all if child.adopted and child.alive]
        self._all = [child for child in self._all if child not in spared]
        for child in spared:
            log.warning("%s: process %d lived before and is left alone, without a supervisor", child.name, child.pid)
        return bool(spared)

    def keep_listening(self) -> None:
        """Turn clients away once every worker was given up: on the shared socket they would wait for ever."""
        if self._socket is not None and all(child.state == "fatal" for child in self._all if child.inherited):
            self._socket.turn_away()

    def close(self) -> None:
        """Give up the shared socket. Idempotent."""
        if self._socket is not None:
            self._socket.close()

    def show_deaths(self, control: Control) -> None:
        """Show a death before anything is done about it: ending the rest of a group takes a while."""
        for child in self._all:
            if child.state in ("starting", "running") and not child.alive:
                control.set(f"process.{child.name}.state", layout.STATES.index("backoff"))

    def show(self, control: Control) -> None:
        """Write what is known of them into the control segment."""
        for child in self._all:
            prefix = f"process.{child.name}"
            control.set(f"{prefix}.pid", child.pid)
            control.set(f"{prefix}.start_ticks", child.ticks)
            control.set(f"{prefix}.state", layout.STATES.index(child.state))
            control.set(f"{prefix}.restarts", child.restarts)
            control.set(f"{prefix}.started_ns", child.started_ns)
