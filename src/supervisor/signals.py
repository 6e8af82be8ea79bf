"""What signals ask of a supervisor. A handler only notes that a signal came; the loop acts on it."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections.abc import Sequence

from .operate import RESTART_SIGNALS


class Signals:
    """Counts requests to stop, and names the children whose restart was asked for, in `restarts`."""

    def __init__(self) -> None:
        self.stops = 0
        self.restarts: list[str] = []
        self._wakeup, self._wake = socket.socketpair()
        self._wakeup.setblocking(False)
        self._wake.setblocking(False)

    def handle(self, hangup: bool) -> None:
        """Take SIGTERM, SIGINT and what asks for restarts; `hangup`: the end of the terminal too. Main thread only."""
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.note_stop)
        for name, restart in RESTART_SIGNALS.items():
            signal.signal(restart, lambda *_, name=name: self.restarts.append(name))
        signal.signal(signal.SIGHUP, self.note_stop if hangup else signal.SIG_IGN)

    def note_stop(self, *_: object) -> None:
        """A stop was asked for."""
        self.stops += 1

    def wait(self, pidfds: Sequence[int], seconds: float) -> None:
        """Wait for a signal, for the end of a process, or for so long."""
        poll = select.poll()
        for descriptor in (self._wakeup.fileno(), *pidfds):
            poll.register(descriptor, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)
        with contextlib.suppress(BlockingIOError):
            while self._wakeup.recv(64):
                pass
