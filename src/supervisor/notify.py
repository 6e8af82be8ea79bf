"""The systemd side of the supervisor: readiness, watchdog and state over the socket named by NOTIFY_SOCKET.

Protocol: sd_notify(3), one datagram of KEY=VALUE lines to a Unix socket; a leading @ names an abstract one.
"""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """Tells systemd how the service does; does nothing outside of systemd. Takes its variables out of the environment,
    so that children do not speak for the service."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        for_us = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # Half of the watchdog's time, as sd_watchdog_enabled(3) advises.
        self._every = int(microseconds) / 2e6 if address and for_us and microseconds.isdecimal() else 0.0
        self._last = 0.0
        self._status = ""

    def send(self, **state: str | int) -> None:
        """Send such lines as READY=1 or STATUS=text. A socket that is gone is not our business."""
        if not self._address:
            return
        text = "\n".join(f"{name.upper()}={value}" for name, value in state.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto(text.encode(), self._address)
        except OSError:
            return

    def beat(self, status: str) -> None:
        """Say that the loop turns, as often as the watchdog wants, and what the status is when it changed."""
        now = time.monotonic()
        if self._every and now - self._last >= self._every:
            self._last = now
            self.send(watchdog=1)
        if status != self._status:
            self._status = status
            self.send(status=status)
