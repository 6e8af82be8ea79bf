"""The socket that workers share, and the one that the next supervisor binds beside it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tandem.inference_proc.workers.sockets import listen_on
from tandem.shared.errors import TandemError
from tandem.supervisor.children.server_socket import ServerSocket
from tandem.supervisor.creation import StartFailed


def given(shared: ServerSocket) -> int:
    """A descriptor as a worker gets it."""
    child: Any = SimpleNamespace(command=["server"], inherited=())
    shared.give_to(child)
    assert child.command == ["server", "--listener", str(child.inherited[0])]
    return os.dup(child.inherited[0])


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A client's connection; OSError if it is refused."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        yield client


@pytest.fixture
def port() -> int:
    """One that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_connection_that_waits_outlives_the_worker(port: int) -> None:
    """It was made while one worker listened, which went without accepting it: another one takes it."""
    shared = ServerSocket("127.0.0.1", port)
    with pytest.raises(ConnectionRefusedError), connected(port):
        pass
    first, second = listen_on(given(shared), 5.0), listen_on(given(shared), 5.0)
    with connected(port) as client:
        first.close()
        client.sendall(b"asked")
        accepted = second.accept()[0]
        assert accepted.recv(5) == b"asked"
        accepted.close()
    second.close()
    shared.close()


def test_nobody_waits_for_workers_that_were_given_up(port: int) -> None:
    """Clients are refused, those that wait too; a worker that starts again is reached."""
    shared = ServerSocket("127.0.0.1", port)
    listen_on(given(shared), 5.0).close()
    with connected(port) as client:
        shared.turn_away()
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    with pytest.raises(ConnectionRefusedError), connected(port):
        pass
    shared.turn_away()
    again = listen_on(given(shared), 5.0)
    with connected(port):
        again.accept()[0].close()
    again.close()
    shared.close()


def test_the_next_supervisor_binds_beside_the_living(port: int) -> None:
    """A second socket takes no connection before one of its workers listens."""
    former, own = ServerSocket("127.0.0.1", port), ServerSocket("127.0.0.1", port)
    old = listen_on(given(former), 5.0)
    former.close()
    old.settimeout(20)
    for _ in range(20):
        with connected(port):
            old.accept()[0].close()
    old.close()
    new = listen_on(given(own), 5.0)
    with connected(port):
        new.accept()[0].close()
    new.close()
    own.close()


def test_an_address_that_is_not_to_be_had_is_named(port: int) -> None:
    """Another program's port is refused with what to do; what is no socket is refused, too."""
    with socket.create_server(("127.0.0.1", port)), pytest.raises(StartFailed, match=f"127.0.0.1:{port}.*--port"):
        ServerSocket("127.0.0.1", port)
    descriptor = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(TandemError, match=f"--listener: cannot listen on descriptor {descriptor}"):
        listen_on(descriptor, 5.0)
    os.close(descriptor)
