"""Nothing that a client sends over the network can stop another's decisions, or spoil or double what they record."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from channel_kit import balance
from proof import figure, size, wait_for
from raw_client import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Flood,
    connect,
    frame,
    handshake,
    read_frame,
    read_head,
    websocket,
)
from server_kit import RunningServer

NUMBERS = ["1e39", "-1e308", "1e400", "9" * 40, "9" * 400, "9" * 5000, "NaN", "-Infinity", "true", "null", '"1"', "[1]"]
KEYS = ["7", "null", "[]", r'"\u0000"', r'"\ud800"', '"' + "k" * 10_000 + '"', "1e400"]
HOSTILE = [
    *(f'{{"type":"decide","key":"hostile","observation":[0,0,0,{number}]}}' for number in NUMBERS),
    *(f'{{"type":"decide","key":{key},"observation":[0,0,0,0]}}' for key in KEYS),
    *(f'{{"type":"reward","key":{key},"value":1}}' for key in KEYS),
    *(f'{{"type":"reward","key":"hostile","value":{number}}}' for number in NUMBERS),
    *(f'{{"type":"reward","data":{{"key":"k","value":{number}}}}}' for number in NUMBERS),
    *(f'{{"type":"ping","timestamp":{number}x}}' for number in NUMBERS),
    '{"type":"decide","key":"d","observation":' + "[" * 50_000 + "]" * 50_000 + "}",
    "\ufeff{}",
    "[" * 100_000,
    '{"a":' * 50_000,
    "",
]
FLOODS = {
    "pings": frame(PING) * 5000,
    "pongs": frame(PONG, b"x" * 100) * 2000,
    "empty continuations": frame(TEXT, b"", False) + frame(CONTINUATION, b"", False) * 5000,
    "fragments of one byte": frame(BINARY, b"[", False) + frame(CONTINUATION, b"[", False) * 5000,
    "requests": frame(TEXT, b'{"type":"ping"}') * 1000,
    "nonsense": frame(TEXT, b"{") * 1000,
}


@pytest.fixture
def served(
    instance_name: str, tmp_path: Path, toy_application: str
) -> Iterator[tuple[Any, int, subprocess.Popen[Any]]]:
    """A server process of its own: the instance's control segment, its port, the process."""
    from tandem.shared.configuration.config import parse
    from tandem.shared.instance import create_instance
    from tandem.shared.memory.control import Control

    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    plain = {
        "application": toy_application,
        "data_dir": str(tmp_path / "data"),
        "inference": {"port": port, "max_keys": 64},
        "trainer": {"buffer_capacity": 100_000},
    }
    create_instance(instance_name, parse(plain, "the test's configuration", str(tmp_path)))
    command = [sys.executable, "-m", "tandem.inference_proc", "--instance", instance_name]
    control = Control.attach(instance_name)
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for(lambda: control.get("lane.0.ready"), "the server is ready")
            yield control, port, process
        finally:
            process.terminate()
            assert process.wait(30) == 0
            control.close()


class Innocent:
    """A client that decides, rewards each decision, and counts what went wrong."""

    def __init__(self, port: int, name: str) -> None:
        self._port = port
        self._name = name
        self.made = 0
        self.failed = 0
        self.times: list[float] = []

    def ask(self, rounds: int) -> Innocent:
        """`rounds` decisions and their rewards."""
        with websocket(self._port) as raw:
            for number in range(rounds):
                key = f"{self._name}-{number}"
                started = time.perf_counter()
                decided = self._answer(raw, f'{{"type":"decide","key":"{key}","observation":[0.1,0.2,0.3,0.4]}}')
                self.times.append(time.perf_counter() - started)
                rewarded = self._answer(raw, f'{{"type":"reward","key":"{key}","value":0.5}}')
                self.made += 1
                self.failed += decided["type"] != "decision" or rewarded["data"].get("matched") is not True
        return self

    @staticmethod
    def _answer(raw: socket.socket, text: str) -> Any:
        raw.sendall(frame(TEXT, text.encode()))
        while True:
            opcode, payload = read_frame(raw)
            if opcode == TEXT:
                return json.loads(payload)
            raw.sendall(frame(PONG, payload))


def attack_with_values(port: int, over: threading.Event, seed: int) -> None:
    """Hostile messages, each of which must get one error, until `over`."""
    source = random.Random(seed)
    while not over.is_set():
        with contextlib.suppress(ConnectionError), websocket(port) as raw:
            for text in source.sample(HOSTILE, len(HOSTILE)):
                raw.sendall(frame(source.choice((TEXT, BINARY)), text.encode()))
                assert json.loads(read_frame(raw)[1])["type"] == "error", text[:100]


def attack_with_requests(port: int, over: threading.Event, seed: int) -> None:
    """Requests that are cut, slow, endless or never read, until `over`."""
    source = random.Random(seed)
    chunks = b"POST /logs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 20_000
    payloads = [
        chunks,
        b"GET / HTTP/1.1\r\nX-a: ",
        b"\0" * 1000,
        handshake(port)[:-5],
        b"GET /metrics HTTP/1.1\r\n" * 99,
    ]
    held: list[socket.socket] = []
    while not over.is_set():
        with contextlib.suppress(OSError):
            held.append(connect(port, 1.0))
            held[-1].sendall(source.choice(payloads))
        if len(held) > 50:
            held.pop(0).close()
    for raw in held:
        raw.close()


def test_promise_43_hostile_clients_stop_nobody(served: Any) -> None:
    """Beside 40 floods, hostile values and broken requests every innocent decision is made and rewarded, exactly once,
    and nothing else is recorded; the server is the same process, and somebody new is let in."""
    control, port, process = served
    rounds = size(40, 5000)
    quiet = sorted(Innocent(port, "quiet").ask(50).times)
    made = 50
    attacks: dict[str, Callable[..., None]] = {"values": attack_with_values, "requests": attack_with_requests}
    slowest: list[float] = []
    for name, data in FLOODS.items():
        with Flood(port, data, 40):
            made += (innocent := Innocent(port, name).ask(rounds)).made
        assert innocent.failed == 0, name
        slowest.append(sorted(innocent.times)[rounds // 2])
    for name, attack in attacks.items():
        over = threading.Event()
        threads = [threading.Thread(target=attack, args=(port, over, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        made += (innocent := Innocent(port, name).ask(rounds)).made
        over.set()
        for thread in threads:
            thread.join()
        assert innocent.failed == 0, name
        slowest.append(sorted(innocent.times)[rounds // 2])
    assert process.poll() is None
    counts = control.lane(0)
    assert (counts["decided"], counts["completed"], counts["pending"]) == (made, made, 0)
    assert balance(control) == 0
    assert counts["errors"] == 0
    with connect(port) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_head(raw).startswith(b"HTTP/1.1 200")
    figure(
        43,
        f"0 of {made:,} decisions failed beside 40 floods of {len(FLOODS)} kinds, hostile values and broken requests;"
        f" median {1e3 * quiet[25]:.1f} ms alone, {1e3 * min(slowest):.1f} to {1e3 * max(slowest):.1f} ms beside them",
    )


def spoiled(server: RunningServer) -> int:
    """How many of 30 innocent decisions fail that arrive together with a hostile one."""
    failed = 0
    hostile = frame(TEXT, b'{"type":"decide","key":"h","observation":[0,0,0,3e38]}')
    good = frame(TEXT, b'{"type":"decide","key":"g","observation":[0.1,0.2,0.3,0.4]}')
    with websocket(server.port) as first, websocket(server.port) as second:
        for _ in range(30):
            first.sendall(hostile)
            second.sendall(good)
            read_frame(first)
            failed += json.loads(read_frame(second)[1])["type"] != "decision"
    return failed


class _Spoiler:
    """An engine's `decide_many` that fails as a whole for one request's overflow, and takes its time."""

    def __init__(self, decide_many: Callable[..., Any]) -> None:
        self._decide_many = decide_many

    def __call__(self, requests: Any) -> Any:
        time.sleep(0.005)  # meanwhile the others arrive
        if any(max(observation) > 1e30 for _, observation, _ in requests):
            raise FloatingPointError("the logits are not numbers")
        return self._decide_many(requests)


def test_a_batch_that_fails_as_a_whole_is_found(start_server: Callable[..., Any], toy_application: str) -> None:
    """The same kind of client finds a batch in which one request's failure is everybody's."""
    server = start_server(application=toy_application)
    batcher = server.service.handler._batcher
    batcher._decide_many = _Spoiler(batcher._decide_many)
    assert spoiled(server) == 0

    def all_or_nothing(requests: Any) -> Any:
        try:
            return batcher._decide_many(requests)
        except FloatingPointError as error:
            return [error] * len(requests)

    batcher._decide_all = all_or_nothing
    assert spoiled(server) > 0
