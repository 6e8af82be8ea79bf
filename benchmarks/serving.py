"""How fast the server decides: over 1, 16 and 256 connections from another process, and in process, part by part.

The server runs as `ctl up` starts it, beside a trainer that trains every second. It is kept on one core and the client
on another, so that decisions_per_s is what one core serves. Each connection sends its next observation when the last
one is answered. `calls` has the same for an application of 28 numbers and 10 choices, over HTTP and WebSocket, each
beside an echo on the same server in turns, and the latency at half of what 16 connections reach. The client speaks just
enough WebSocket to cost little itself: its frames are made beforehand, and of a reply it looks at the type only.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import torch
from _calls_load import measure as measure_calls
from _calls_load import text_frame
from _kit import awake_cores, bench_instance, machine, observations, percentiles, raw_observations, rss_mb, write_config
from tandem.inference_proc.engine import Engine

CONNECTIONS = (1, 16, 256)


class Player:
    """One connection of a closed loop: a frame, its answer, the next frame."""

    def __init__(self, host: str, port: int, frames: list[bytes]) -> None:
        self.socket = socket.create_connection((host, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        received = b""
        while b"\r\n\r\n" not in received:
            more = self.socket.recv(4096)
            if not more:
                raise RuntimeError("the server closed the connection")
            received += more
        if b" 101 " not in received.partition(b"\r\n")[0]:
            raise RuntimeError(f"no WebSocket: {received[:80]!r}")
        self.frames = frames
        self.turn = 0
        self.sent_at = 0
        self.rest = received.partition(b"\r\n\r\n")[2]

    def send(self) -> None:
        """Send the next observation."""
        frame = self.frames[self.turn % len(self.frames)]
        self.turn += 1
        self.sent_at = time.perf_counter_ns()
        self.socket.sendall(frame)

    def receive(self) -> bytes | None:
        """The payload of the next text frame if it is complete; control frames are skipped."""
        more = self.socket.recv(1 << 16)
        if not more:
            raise RuntimeError("the server closed the connection")
        data = self.rest + more
        while len(data) >= 2:
            size, start = data[1] & 0x7F, 2
            if size >= 126:
                width = 2 if size == 126 else 8
                size, start = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
            if len(data) < start + size:
                break
            opcode, payload, data = data[0] & 0x0F, data[start : start + size], data[start + size :]
            if opcode == 1:
                self.rest = data
                return payload
        self.rest = data
        return None


def play(url: str, connections: int, seconds: float) -> dict[str, Any]:
    """Decisions per second and latencies (ms) of a closed loop over so many connections."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    made = raw_observations(64 * min(connections, 16), territories=min(connections, 16))
    frames: list[list[bytes]] = [[] for _ in range(min(connections, 16))]
    for number, (_, data) in enumerate(made):
        message = {"type": "observation_data", "timestamp": 1.0, "data": data}
        frames[number % len(frames)].append(text_frame(msgspec.json.encode(message)))
    selector = selectors.DefaultSelector()
    players = [Player(parts.hostname, parts.port, frames[index % len(frames)]) for index in range(connections)]
    for player in players:
        selector.register(player.socket, selectors.EVENT_READ, player)
        player.send()
    latencies: list[int] = []
    warm = time.perf_counter_ns() + int(min(1.0, seconds / 4) * 1e9)
    end, counted_from = warm + int(seconds * 1e9), 0
    while (now := time.perf_counter_ns()) < end:
        for key, _ in selector.select(1.0):
            player = key.data
            reply = player.receive()
            if reply is None:
                continue
            answered = time.perf_counter_ns()
            if answered >= warm:
                counted_from = counted_from or answered
                latencies.append(answered - player.sent_at)
                if b'"spawn_decision"' not in reply and b'"no_action"' not in reply:
                    raise RuntimeError(f"not a decision: {reply[:200]!r}")
            player.send()
    for player in players:
        player.socket.close()
    figures = percentiles(latencies, 1e6)
    del figures["max"]
    return {"decisions_per_s": round(len(latencies) * 1e9 / max(1, now - counted_from), 1), "latency_ms": figures}


def over_the_wire(seconds: float) -> dict[str, Any]:
    """Start a server with `ctl`, and play against it from another process with each number of connections."""
    instance = f"bench-serving-{os.getpid()}"
    ctl = [sys.executable, "-m", "tandem.supervisor"]
    allowed = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), inference={"port": 0})
        words = ["up", "-d", "--instance", instance, "--config", str(config)]
        subprocess.run([*ctl, *words], check=True, capture_output=True, cwd=folder)
        try:
            status = subprocess.run([*ctl, "status", "--instance", instance, "--json"], check=True, capture_output=True)
            state = json.loads(status.stdout)
            os.sched_setaffinity(state["inference"]["pid"], {allowed[0]})
            found: dict[str, Any] = {"decisions_per_s": {}, "latency_ms": {}}
            for connections in CONNECTIONS:
                client = [sys.executable, __file__, "--client", state["url"], "--connections", str(connections)]
                played = subprocess.run([*client, "--seconds", str(seconds)], check=True, stdout=subprocess.PIPE)
                for name, value in json.loads(played.stdout).items():
                    found[name][str(connections)] = value
            return found
        finally:
            subprocess.run([*ctl, "down", "--instance", instance], check=True, capture_output=True, cwd=folder)


class Stopwatch:
    """Wraps a function and adds up how long its calls take."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.total = 0

    def __call__(self, *arguments: Any) -> Any:
        started = time.perf_counter_ns()
        try:
            return self.call(*arguments)
        finally:
            self.total += time.perf_counter_ns() - started

    def take(self) -> int:
        """What was measured since the last take; nanoseconds."""
        total, self.total = self.total, 0
        return total


def in_process(decisions: int) -> dict[str, Any]:
    """engine_decide_us, first undisturbed and then with a stopwatch around each part."""
    with bench_instance(inference={"seed": 1}, trainer={"seed": 1}) as instance:
        engine = Engine.attach(instance)
        requests = observations(512)
        _decide(engine, requests, min(2000, decisions))
        figures: dict[str, Any] = percentiles(_decide(engine, requests, decisions))
        watches = {
            "refresh": (engine._live, "refresh"),
            "features": (engine._encoder, "write"),
            "reward": (engine._hooks, "reward"),
            "forward": (engine.policy, "act_many"),
            "gate": (engine.gate, "evaluate"),
            "record": (engine._recorder, "record"),
        }
        parts: dict[str, Stopwatch] = {}
        for name, (owner, method) in watches.items():
            parts[name] = Stopwatch(getattr(owner, method))
            # The application is frozen, and only here somebody wants to know.
            object.__setattr__(owner, method, parts[name])
        taken: dict[str, list[int]] = {name: [] for name in parts}
        for turn in range(decisions):
            key, observation = requests[turn % len(requests)]
            engine.decide(key, observation)
            for name, watch in parts.items():
                taken[name].append(watch.take())
        figures["parts"] = {
            name: {figure: value for figure, value in percentiles(values).items() if figure in ("p50", "p99")}
            for name, values in taken.items()
        }
        engine.close()
    return figures


def memory(decisions: int) -> dict[str, Any]:
    """Resident memory in process: at the start, when everything was used once and the ring is full, and at the end."""
    with bench_instance(inference={"seed": 1}, trainer={"seed": 1}) as instance:
        engine = Engine.attach(instance)
        requests = observations(512)
        start = rss_mb()
        warm_up = min(20_000, decisions // 4)
        for done, count in ((0, warm_up), (warm_up, decisions - warm_up)):
            for turn in range(done, done + count):
                key, observation = requests[turn % len(requests)]
                engine.decide(key, observation)
            if not done:
                warm = rss_mb()
        after = rss_mb()
        engine.close()
    return {
        "start": start,
        "after_warm_up": warm,
        "after": after,
        "decisions": decisions,
        "growth_after_warm_up": round(after / warm - 1.0, 4),
    }


def _decide(engine: Engine, requests: list[tuple[str, Any]], count: int) -> list[int]:
    durations = []
    for turn in range(count):
        key, observation = requests[turn % len(requests)]
        started = time.perf_counter_ns()
        engine.decide(key, observation)
        durations.append(time.perf_counter_ns() - started)
    return durations


def show(result: dict[str, Any]) -> None:
    """As a table for people."""
    print(f"{'connections':>12}{'decisions/s':>14}{'p50 ms':>9}{'p99 ms':>9}{'p99.9 ms':>10}")
    for connections, rate in result["decisions_per_s"].items():
        latency = result["latency_ms"][connections]
        print(f"{connections:>12}{rate:14.0f}{latency['p50']:9.2f}{latency['p99']:9.2f}{latency['p999']:10.2f}")
    for kind, found in result["calls"].items():
        for connections, ratio in found["ratio"].items():
            rates = f"{found['per_s'][connections]:.0f}/s, echo {found['echo_per_s'][connections]:.0f}/s"
            print(f"{kind}, {connections} connections: {rates}, {ratio:.2f} of it")
        print(f"{kind}, 16 connections at {found['paced_16']['rate']:.0f}/s: p99 {found['paced_16']['p99']:.2f} ms")
    inside = result["engine_decide_us"]
    print(f"in process: p50 {inside['p50']:.1f} us, p99 {inside['p99']:.1f} us")
    for name, part in inside["parts"].items():
        print(f"  {name:10} p50 {part['p50']:7.1f} us   p99 {part['p99']:7.1f} us")
    memory = result["rss_mb"]
    print(f"memory: {memory['after_warm_up']} MB, after {memory['decisions']} decisions {memory['after']} MB")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="short, to see that it works; the figures mean little")
    parser.add_argument("--in-process", action="store_true", help="leave out the connections and the memory")
    parser.add_argument("--client", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help="for each number of connections (10)")
    options = parser.parse_args()
    seconds = options.seconds or (1.5 if options.quick else 10.0)
    if options.client:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(allowed[1:] or allowed))
        print(json.dumps(play(options.client, options.connections, seconds)))
        return 0
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    result: dict[str, Any] = {}
    if not options.in_process:
        with awake_cores():
            result |= over_the_wire(seconds)
        # Two processes and a trainer on two cores leave none at rest: a spinner would only stand in their way.
        result["calls"] = measure_calls(min(seconds, 4.0))
    # A core that is never at rest needs nobody to keep it awake, and where two cores share their units a spinner on
    # one slows the other.
    result["engine_decide_us"] = in_process(1000 if options.quick else 20_000)
    if not options.in_process:
        result["rss_mb"] = memory(8_000 if options.quick else 500_000)
    result["machine"] = machine()
    if options.json or options.in_process:
        print(json.dumps(result, indent=None if options.json else 1))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
