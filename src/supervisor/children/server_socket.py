"""The socket that several workers of the bundled server accept on, bound by the supervisor.

They share one socket, and do not have one each under SO_REUSEPORT: connections that wait to be accepted belong to the
socket. When a worker is killed, another takes them, or the worker's successor does; on a socket of its own they would
be reset. What is lost is what the dead worker had accepted.

SO_REUSEPORT is set all the same, for the supervisor after a killed one: it cannot get at the socket that the living
workers hold, and binds a second one to the same address, on which the workers that it starts will listen. Nobody
listens on it before, so no connection waits on it for a worker that is not there. That the port is free of others was
seen before, when the instance was created.
"""

from __future__ import annotations

import contextlib
import socket

from ...shared.configuration.addresses import authority
from ..creation import StartFailed
from .child import Child


class ServerSocket:
    """One bound socket, on which nobody listens yet. Raises StartFailed if the address is not to be had."""

    def __init__(self, host: str, port: int) -> None:
        name = host.strip("[]")
        self._socket = socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if ":" in name:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind((name, port))
        except OSError as error:
            self._socket.close()
            raise StartFailed(
                f"the server cannot listen on {authority(name, port)}: {error.strerror};"
                " choose another port with --port (0: any free one)"
            ) from None

    def give_to(self, child: Child) -> None:
        """Have a worker started with this socket."""
        descriptor = self._socket.fileno()
        child.command += ["--listener", str(descriptor)]
        child.inherited = (descriptor,)

    def turn_away(self) -> None:
        """Refuse connections from now on, those that wait included, until a worker listens again."""
        with contextlib.suppress(OSError):  # nobody listens
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back. Idempotent."""
        self._socket.close()
