"""The socket that the bundled server listens on."""

from __future__ import annotations

import socket

from ...shared.configuration.addresses import authority
from ...shared.errors import TandemError


def listen(host: str, port: int, write_timeout: float) -> socket.socket:
    """A listening socket. Raises TandemError if the address is not to be had."""
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        where = authority(host, port)
        raise TandemError(f"inference.host, inference.port: cannot listen on {where}: {error}") from error
    # Inherited by every connection: a client that does not read is cut off, however long it goes on acknowledging.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(write_timeout * 1000))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
