"""Load on the calls over HTTP and WebSocket, each beside an echo on the same server, in turns.

A client process for each figure, on another core than the server. Without a rate every connection sends its next
request when the last one is answered; with one the requests are due at fixed times, and a latency counts from then.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

FEATURES = 28
CONNECTIONS = (1, 16, 256)
PATHS = {"http": ("/v1/decide", "/echo"), "websocket": ("/ws", "/echo")}
ROUNDS = 3


def text_frame(payload: bytes) -> bytes:
    """A masked WebSocket text frame (RFC 6455, section 5.2); with a mask of zeros the payload stands as it is."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
    return head + bytes(4) + payload


class Line:
    """One connection: whole requests out, whole answers in."""

    def __init__(self, kind: str, port: int, path: str, number: int) -> None:
        self.kind = kind
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rng = np.random.default_rng(number)
        body: dict[str, Any] = {"observation": rng.normal(size=FEATURES).round(3).tolist(), "key": f"line {number}"}
        if kind == "websocket":
            self._upgrade(path)
            self.request = text_frame(msgspec.json.encode({"type": "decide", **body}))
        else:
            payload = msgspec.json.encode(body)
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(payload)}\r\n"
            self.request = f"{head}Content-Type: application/json\r\n\r\n".encode() + payload
        self.rest = b""
        self.due = 0

    def _upgrade(self, path: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.socket.recv(4096)
        assert b" 101 " in received.partition(b"\r\n")[0], received[:80]

    def receive(self) -> bool:
        """True if an answer is complete."""
        self.rest += self.socket.recv(1 << 16)
        size = self._whole()
        if size is None:
            return False
        answer, self.rest = self.rest[:size], self.rest[size:]
        if b'"action"' not in answer and b'"observation"' not in answer:
            raise RuntimeError(f"not an answer: {answer[:300]!r}")
        return True

    def _whole(self) -> int | None:
        """Length of the answer at the beginning of what came in, or None."""
        data = self.rest
        if self.kind == "http":
            head, end, _ = data.partition(b"\r\n\r\n")
            if not end:
                return None
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            size = len(head) + 4 + length
        else:
            if len(data) < 4:
                return None
            size = data[1] & 0x7F
            size = int.from_bytes(data[2:4], "big") + 4 if size == 126 else size + 2
        return size if len(data) >= size else None


def play(kind: str, port: int, path: str, connections: int, seconds: float, rate: float) -> dict[str, Any]:
    """Answers a second, and latencies in milliseconds."""
    lines = [Line(kind, port, path, number) for number in range(connections)]
    selector = selectors.DefaultSelector()
    for line in lines:
        selector.register(line.socket, selectors.EVENT_READ, line)
    started = now = time.perf_counter_ns()
    warm, end = started + int(min(1.0, seconds / 4) * 1e9), started + int(seconds * 1e9)
    between = int(1e9 * connections / rate) if rate else 0
    idle: list[Line] = []
    for number, line in enumerate(lines):
        line.due = started + number * between // connections
        idle.append(line)
    latencies: list[int] = []
    while now < end:
        now = time.perf_counter_ns()
        for line in [line for line in idle if line.due <= now]:
            idle.remove(line)
            if not rate:
                line.due = now
            line.socket.sendall(line.request)
        wait = max(0.0, (min(line.due for line in idle) - now) / 1e9) if idle else 1.0
        for key, _ in selector.select(wait):
            line = key.data
            if not line.receive():
                continue
            answered = time.perf_counter_ns()
            if answered >= warm:
                latencies.append(answered - line.due)
            line.due = line.due + between if rate else answered
            idle.append(line)
    for line in lines:
        line.socket.close()
    cuts = dict(zip(("p50", "p99", "p999"), np.percentile(latencies, (50, 99, 99.9)).round(-3) / 1e6, strict=True))
    return {"per_s": round(len(latencies) * 1e9 / (now - warm), 1), "latency_ms": cuts}


def measure(seconds: float) -> dict[str, Any]:
    """Both kinds at each number of connections beside the echo, and latencies at half of what 16 connections reach."""
    from _kit import write_config  # here, so that a client process starts fast

    instance, port = f"bench-calls-{os.getpid()}", _free_port()
    ctl = [sys.executable, "-m", "tandem.supervisor"]
    environment = {**os.environ, "BENCH_PORT": str(port)}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).with_name("_echo_server.py")
        # One connection that echoes as fast as it can would be told to slow down.
        settings = {"command": f"{sys.executable} {script}", "pending_capacity": 1024, "max_frame_rate": 1e6}
        config = write_config(Path(folder), inference=settings)
        text = config.read_text(encoding="utf-8") + "application: _echo_server\n"
        config.write_text(text, encoding="utf-8")
        words = ["up", "-d", "--instance", instance, "--config", str(config)]
        subprocess.run([*ctl, *words], check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment)
        try:
            status = subprocess.run([*ctl, "status", "--instance", instance, "--json"], check=True, capture_output=True)
            os.sched_setaffinity(json.loads(status.stdout)["inference"]["pid"], {min(os.sched_getaffinity(0))})
            return {kind: _kind(kind, port, seconds) for kind in PATHS}
        finally:
            subprocess.run([*ctl, "down", "--instance", instance, "--discard"], check=True, capture_output=True)


def _kind(kind: str, port: int, seconds: float) -> dict[str, Any]:
    found: dict[str, Any] = {"per_s": {}, "echo_per_s": {}, "ratio": {}}
    decide, echo = PATHS[kind]
    for connections in CONNECTIONS:
        pairs = [
            (_client(kind, port, decide, connections, seconds), _client(kind, port, echo, connections, seconds))
            for _ in range(ROUNDS)
        ]
        name = str(connections)
        found["per_s"][name] = statistics.median(ours["per_s"] for ours, _ in pairs)
        found["echo_per_s"][name] = statistics.median(theirs["per_s"] for _, theirs in pairs)
        found["ratio"][name] = round(statistics.median(ours["per_s"] / theirs["per_s"] for ours, theirs in pairs), 3)
    rate = found["per_s"]["16"] / 2
    found["paced_16"] = {"rate": rate, **_client(kind, port, decide, 16, seconds, rate)["latency_ms"]}
    return found


def _client(kind: str, port: int, path: str, connections: int, seconds: float, rate: float = 0.0) -> dict[str, Any]:
    options = {"kind": kind, "port": port, "path": path, "connections": connections, "seconds": seconds, "rate": rate}
    command = [sys.executable, __file__, json.dumps(options)]
    played = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    answer: dict[str, Any] = json.loads(played.stdout)
    return answer


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number: int = taken.getsockname()[1]
    return number


if __name__ == "__main__":
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(allowed[1:] or allowed))
    print(json.dumps(play(**json.loads(sys.argv[1]))))
