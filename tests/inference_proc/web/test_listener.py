"""Accepting connections when there are too many, or no file descriptors left."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from raw_client import connect, handshake, is_cut_off, read_head, websocket
from server_kit import ask, assert_silent, browser_observation
from tandem.inference_proc.web.limits import Limits
from tandem.inference_proc.web.listener import most_connections

GET = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def test_there_are_descriptors_for_as_many_as_may_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound follows the setting, and the limit of open files if that is less."""
    limits = Limits(connections=100)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 20, 1 << 20))
    assert most_connections(limits) == 264
    monkeypatch.setattr(resource, "getrlimit", lambda which: (200, 200))
    assert most_connections(limits) == 72


def test_who_waits_longest_without_asking_makes_room(start_server: Callable[..., Any]) -> None:
    """With every place taken by silent clients a new one is answered, and the oldest silent one is cut off."""
    server = start_server(limits={"connections": 1})
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(server.connect())
        silent = [stack.enter_context(connect(server.port)) for _ in range(65)]
        for _ in range(3):
            with connect(server.port) as asking:
                asking.sendall(GET)
                assert read_head(asking).startswith(b"HTTP/1.1 200")
        assert is_cut_off(silent[0])
        silent[-1].sendall(GET)
        assert read_head(silent[-1]).startswith(b"HTTP/1.1 200")
        assert_silent(client)


def test_without_room_new_connections_are_closed_at_once(start_server: Callable[..., Any]) -> None:
    """Who is being served is never cut off for somebody new."""
    server = start_server(limits={"connections": 40})
    server.server._accepting._most = 20
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(20)]
        with connect(server.port) as refused:
            assert is_cut_off(refused)
        for client in clients:
            assert_silent(client)
        assert server.server._accepting.refused >= 1


@pytest.fixture
def process(instance_name: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server process of its own, which may open a few files only, and its port."""
    from tandem.shared.configuration.config import parse
    from tandem.shared.instance import create_instance

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    plain = {"data_dir": str(tmp_path / "data"), "inference": {"port": port}, "logging": {"format": "json"}}
    (tmp_path / "simulation_gate.yaml").write_text("{}\n", encoding="utf-8")
    create_instance(instance_name, parse(plain, "the test's configuration", str(tmp_path)))
    command = [sys.executable, "-W", "error", "-m", "tandem.inference_proc", "--instance", instance_name]
    with (tmp_path / "server.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as started:
        try:
            deadline = time.monotonic() + 60
            while not is_answered(port):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield started, port
        finally:
            started.terminate()
        assert started.wait(30) == 0


def is_answered(port: int) -> bool:
    """True if a new connection's request is answered."""
    try:
        with connect(port, 5) as raw:
            raw.sendall(GET)
            return read_head(raw).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def test_without_a_descriptor_left_it_goes_on_quietly(
    process: tuple[subprocess.Popen[bytes], int], tmp_path: Path
) -> None:
    """At the limit of open files those who are connected are answered, newcomers are closed, and the log stays short;
    when somebody leaves there is room again."""
    from websockets.sync.client import connect as connect_websocket

    server, port = process
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connect_websocket(f"ws://127.0.0.1:{port}/ws", proxy=None))
        used = len(os.listdir(f"/proc/{server.pid}/fd"))
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 10, used + 10))
        crowd: list[socket.socket] = []
        with contextlib.suppress(OSError, AssertionError):
            while len(crowd) < 50:
                crowd.append(stack.enter_context(websocket(port)))
        assert 5 < len(crowd) < 50
        more = [stack.enter_context(connect(port)) for _ in range(200)]
        for raw in more:
            with contextlib.suppress(OSError):
                raw.sendall(handshake(port))
        assert all(is_cut_off(raw) for raw in more)
        for _ in range(20):
            assert ask(client, browser_observation())["type"] in ("spawn_decision", "no_action")
        for raw in crowd:
            raw.close()
        deadline = time.monotonic() + 20
        while not is_answered(port):
            assert time.monotonic() < deadline, "there is no room after everybody left"
    lines = (tmp_path / "server.log").read_text().splitlines()
    assert len(lines) < 10, lines[:20]
    assert any("file descriptor" in json.loads(line)["message"] for line in lines)
