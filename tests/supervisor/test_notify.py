"""What systemd is told, read from a socket that the test opens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tandem.supervisor.notify import Notifier


@pytest.fixture(params=["file", "abstract"])
def service(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end: a datagram socket whose address stands in NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(30)
        if request.param == "file":
            address = str(tmp_path / "notify")
            manager.bind(address)
        else:
            address = f"@tandem-test-{os.getpid()}"
            manager.bind("\0" + address[1:])
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield manager


def test_readiness_and_status_are_sent(service: socket.socket) -> None:
    """Each state is one datagram of KEY=VALUE lines; a status is sent when it changes."""
    notifier = Notifier()
    notifier.send(ready=1, mainpid=7)
    assert service.recv(4096) == b"READY=1\nMAINPID=7"
    for status in ("trainer running", "trainer running", "trainer backoff"):
        notifier.beat(status)
    assert service.recv(4096) == b"STATUS=trainer running"
    assert service.recv(4096) == b"STATUS=trainer backoff"


def test_the_watchdog_is_fed_at_half_of_its_time(service: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """WATCHDOG=1 goes out as often as WATCHDOG_USEC asks, and not with every turn."""
    monkeypatch.setenv("WATCHDOG_USEC", str(10_000_000))
    notifier = Notifier()
    notifier.beat("x")
    assert service.recv(4096) == b"WATCHDOG=1"
    assert service.recv(4096) == b"STATUS=x"
    notifier.beat("x")
    notifier._last -= 5.0
    notifier.beat("x")
    assert service.recv(4096) == b"WATCHDOG=1"
    service.setblocking(False)
    with pytest.raises(BlockingIOError):
        service.recv(4096)


def test_children_do_not_inherit_the_socket(service: socket.socket) -> None:
    """The variables are taken out of the environment: only the supervisor speaks for the service."""
    Notifier()
    program = "import os; print('NOTIFY_SOCKET' in os.environ)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"


def test_nothing_is_sent_outside_of_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without NOTIFY_SOCKET, or with one that nobody reads, nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().send(ready=1)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    Notifier().send(ready=1)
