"""Accepting connections: bounded, and quiet at the limit of open files.

asyncio's own loop tries again a thousand times when there is no file descriptor left, and logs each time. Here a
connection that there is no room for is closed at once; what makes room first is the connection that has waited longest
with its request incomplete.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

from ...shared.rate_limit import RateLimit
from .guarded import GuardedConfig
from .limits import Limits

log = logging.getLogger(__name__)

_PER_TURN = 8
"""Connections accepted in one turn of the event loop."""
_SPARE = 128
"""File descriptors that are left to everything else: logs, checkpoints, threads."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RETRY = 0.5


def raise_descriptor_limit() -> None:
    """Allow as many open connections as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections(limits: Limits) -> int:
    """As many connections of HTTP as WebSockets may be open at once, and no more than there are descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(2 * limits.connections + 64, soft - _SPARE))


class Listener:
    """Accepts on a listening socket from `start` to `stop`. Belongs to one event loop."""

    def __init__(self, listening: socket.socket, config: GuardedConfig, open_connections: set[Any]) -> None:
        self._listening = listening
        self._waiting = config.waiting
        self._most = most_connections(config.limits)
        self._open = open_connections
        self._beginning: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._build: Callable[[], asyncio.Protocol] | None = None
        self._reserve: int | None = None
        self._warn = RateLimit(10.0)
        self.refused = 0

    def start(self, build: Callable[[], asyncio.Protocol]) -> None:
        """Accept from now on; `build` makes a connection's protocol."""
        self._loop = asyncio.get_running_loop()
        self._build = build
        self._listening.setblocking(False)
        self._reserve = _open_reserve()
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def stop(self) -> None:
        """Accept nobody any more. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.remove_reader(self._listening.fileno())
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def _accept(self) -> None:
        for _ in range(_PER_TURN):
            try:
                connection, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # Others are errors of the connection that was to be accepted.
                if error.errno in _EXHAUSTED and not self._make_room():
                    return
                continue
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        assert self._loop is not None
        assert self._build is not None
        if len(self._open) + len(self._beginning) >= self._most and not self._drop_longest_waiting():
            connection.close()
            self._refused("there are as many connections as there may be")
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._begin(connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, connection: socket.socket) -> None:
        assert self._loop is not None
        assert self._build is not None
        try:
            await self._loop.connect_accepted_socket(self._build, connection)
        except Exception as error:
            connection.close()
            self._warn.warning(log, "a connection could not be begun: %s", error)

    def _drop_longest_waiting(self) -> bool:
        """Cut off the connection whose request has been incomplete for longest; False if there is none."""
        while self._waiting:
            protocol, _ = self._waiting.popitem(last=False)
            if not protocol.transport.is_closing():
                protocol.transport.abort()
                self._refused("a connection without a complete request makes room for a new one")
                return True
        return False

    def _make_room(self) -> bool:
        """There is no descriptor left: free one, or with the one in reserve turn somebody away.

        False if nothing can be done in this turn.
        """
        if self._drop_longest_waiting():
            return False  # its descriptor is free from the loop's next turn on
        self._refused("there is no file descriptor left")
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            with contextlib.suppress(OSError):
                self._listening.accept()[0].close()
            self._reserve = _open_reserve()
            if self._reserve is not None:
                return True
        assert self._loop is not None
        self._loop.remove_reader(self._listening.fileno())
        self._loop.call_later(_RETRY, self._try_again)
        return False

    def _try_again(self) -> None:
        if self._loop is not None:
            self._reserve = _open_reserve() if self._reserve is None else self._reserve
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def _refused(self, why: str) -> None:
        self.refused += 1
        self._warn.warning(log, "connections are turned away: " + why)


def _open_reserve() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
