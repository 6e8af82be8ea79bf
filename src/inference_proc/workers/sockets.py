"""The socket that the bundled server listens on: its own, or one that several workers share."""

from __future__ import annotations

import socket

from ...shared.configuration.addresses import authority
from ...shared.errors import TandemError

_BACKLOG = 1024


def listen(host: str, port: int, write_timeout: float) -> socket.socket:
    """A listening socket. Raises TandemError if the address is not to be had."""
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        where = authority(host, port)
        raise TandemError(f"inference.host, inference.port: cannot listen on {where}: {error}") from error
    return _prepared(listener, write_timeout)


def listen_on(descriptor: int, write_timeout: float) -> socket.socket:
    """A listening socket of a bound one that this process was started with, and that other workers may share.

    Raises TandemError if it is none, or the address is not to be had any more.
    """
    try:
        listener = socket.socket(fileno=descriptor)
        listener.set_inheritable(False)
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        raise TandemError(f"--listener: cannot listen on descriptor {descriptor}: {error}") from error
    return _prepared(listener, write_timeout)


def _prepared(listener: socket.socket, write_timeout: float) -> socket.socket:
    # Inherited by every connection: a client that does not read is cut off, however long it goes on acknowledging.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(write_timeout * 1000))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
