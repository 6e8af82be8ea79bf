"""What it costs to be watched: size of the page, time of each answer, the server's processor time with ten dashboards.

Server and trainer run as `ctl up` starts them, after an hour's worth of training steps. Ten clients in another process
do what the page does: load it, follow the event stream, ask for everything again every 15 s. The cost of the metrics of
one decision is measured in this process, in rounds with and without them.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.client
import json
import logging
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import torch
from _kit import awake_cores, bench_instance, machine, observations, percentiles
from tandem.inference_proc.engine import Engine
from tandem.shared.commands import send
from tandem.shared.memory.control import Control

DASHBOARDS = 10
POLL = 15.0
HOUR = 3600
"""Training steps of an hour at the default interval."""
PAGE = "/dashboard"
ENDPOINTS = ("/api/training/stats", "/api/training/history", "/api/training/live", "/api/nn-dashboard", "/metrics")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def child(module: str, instance: str) -> Iterator[psutil.Process]:
    """A process of the instance, stopped afterwards."""
    process = subprocess.Popen([sys.executable, "-m", f"tandem.{module}", "--instance", instance])
    try:
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition: Any, what: str, timeout: float) -> None:
    """Wait for `condition`, which is asked 20 times a second. Raises RuntimeError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {timeout:g} s")
        time.sleep(0.05)


def get(address: tuple[str, int], path: str) -> bytes:
    """The body of an answer. Raises RuntimeError if it is none."""
    return transfer(address, path)[0]


def transfer(address: tuple[str, int], path: str) -> tuple[bytes, int]:
    """The body of an answer, and the bytes that it took on the wire, compressed as for a browser."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        connection.request("GET", path, headers={"accept-encoding": "gzip"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} answered {answer.status}: {body[:200]!r}")
        size = len(str(answer.headers)) + len(body)
        return gzip.decompress(body) if answer.getheader("content-encoding") == "gzip" else body, size
    finally:
        connection.close()


def first_requests(page: bytes) -> tuple[str, ...]:
    """What the page asks for when it is opened."""
    shown = re.search(rb"SHOWN = (\d+)", page)
    limit = int(shown[1]) if shown else 4096
    return f"/api/training/live?since=0&limit={limit}", "/api/nn-dashboard"


class Dashboard(threading.Thread):
    """One open dashboard."""

    def __init__(self, address: tuple[str, int], delay: float) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._delay = delay
        self.is_open = False
        self.events = 0

    def run(self) -> None:
        """Until the process ends."""
        time.sleep(self._delay)
        requests = first_requests(get(self._address, PAGE))
        newest = self._ask(requests)
        self.is_open = True
        threading.Thread(target=self._poll, args=(newest, requests[1]), daemon=True).start()
        while True:
            newest = self._follow(newest)

    def _ask(self, requests: tuple[str, ...]) -> int:
        live = json.loads(get(self._address, requests[0]))
        get(self._address, requests[1])
        return int(live["rows"][-1]["version"]) if live["rows"] else 0

    def _poll(self, newest: int, decisions: str) -> None:
        while True:
            time.sleep(POLL)
            newest = self._ask((f"/api/training/live?since={newest}", decisions)) or newest

    def _follow(self, newest: int) -> int:
        connection = http.client.HTTPConnection(*self._address, timeout=30)
        connection.request("GET", f"/api/training/stream?since={newest}")
        for line in connection.getresponse():
            if line.startswith(b"event: end"):
                break
            if line.startswith(b"data: "):
                self.events += 1
                rows = json.loads(line[6:])["rows"]
                newest = int(rows[-1]["version"]) if rows else newest
        connection.close()
        return newest


def watch(url: str) -> None:
    """Keep the dashboards open until standard input closes; one line of JSON when all are open, one at the end."""
    parts = urlsplit(url)
    address = (str(parts.hostname), int(parts.port or 80))
    dashboards = [Dashboard(address, index * 0.1) for index in range(DASHBOARDS)]
    for dashboard in dashboards:
        dashboard.start()
    wait_for(lambda: all(dashboard.is_open for dashboard in dashboards), "the dashboards are open", 60)
    print(json.dumps({"open": len(dashboards)}), flush=True)
    before = sum(dashboard.events for dashboard in dashboards)
    sys.stdin.read()
    print(json.dumps({"events": sum(dashboard.events for dashboard in dashboards) - before}), flush=True)


def cpu_share(process: psutil.Process, seconds: float) -> float:
    """Share of one core that a process takes."""
    before, started = process.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, elapsed = process.cpu_times(), time.monotonic() - started
    return float((after.user + after.system - before.user - before.system) / elapsed)


def over_http(steps: int, seconds: float) -> dict[str, Any]:
    """Sizes, times and processor shares of a server after `steps` training steps."""
    port = free_port()
    sections: dict[str, Any] = {
        "inference": {"port": port, "seed": 1},
        "trainer": {"training_interval": 0.001, "seed": 1, "checkpoint_interval": 1000.0},
    }
    with bench_instance(**sections) as instance:
        engine = Engine.attach(instance)
        for key, observation in observations(2500):
            engine.decide(key, observation)
        control = engine.control
        with child("inference_proc", instance) as server, child("trainer_proc", instance):
            wait_for(lambda: control.get("history.head") >= steps, f"{steps} training steps", 300)
            slow_down(engine)
            address = ("127.0.0.1", port)
            wait_for(lambda: is_served(control, server.pid), "the server", 60)
            page, size = transfer(address, PAGE)
            sizes = {path.partition("?")[0]: transfer(address, path)[1] for path in first_requests(page)}
            result: dict[str, Any] = {
                "history_rows": min(4096, control.get("history.head")),
                "transfer_bytes": {"page": size, **sizes, "first_load": size + sum(sizes.values())},
                "api_ms": {path: timed(address, path) for path in ENDPOINTS},
                "cpu_share": {"alone": round(cpu_share(server, seconds / 2), 4)},
            }
            result["cpu_share"] |= watched(address, server, seconds)
        engine.close()
    return result


def is_served(control: Control, pid: int) -> bool:
    """True once the server process answers."""
    return any(control.get(f"lane.{lane}.ready") == pid for lane in range(control.get("lanes")))


def slow_down(engine: Engine) -> None:
    """From now on one training step each second."""
    plain = engine.config.to_dict()
    plain["trainer"]["training_interval"] = 1.0
    engine.instance.data_dir.mkdir(parents=True, exist_ok=True)
    (engine.instance.data_dir / "config.json").write_text(json.dumps(plain), encoding="utf-8")
    answer = send(engine.control, "reload")
    if not answer.done:
        raise RuntimeError(f"reload: {answer}")


def timed(address: tuple[str, int], path: str) -> dict[str, float]:
    """Milliseconds of an answer, connection included."""
    durations = []
    for _ in range(40):
        started = time.perf_counter_ns()
        get(address, path)
        durations.append(time.perf_counter_ns() - started)
        time.sleep(0.02)
    return percentiles(durations, 1e6)


def watched(address: tuple[str, int], server: psutil.Process, seconds: float) -> dict[str, Any]:
    """The server's share of a core while ten dashboards are open."""
    url = f"http://{address[0]}:{address[1]}"
    with subprocess.Popen(
        [sys.executable, __file__, "--watch", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as clients:
        assert clients.stdin is not None
        assert clients.stdout is not None
        if not clients.stdout.readline():
            raise RuntimeError("the dashboards could not be opened")
        share = cpu_share(server, seconds)
        clients.stdin.close()
        events = json.loads(clients.stdout.readline())["events"]
    return {f"with_{DASHBOARDS}_dashboards": round(share, 4), "events_per_s": round(events / seconds, 2)}


def cost_of_metrics(rounds: int, block: int = 10) -> dict[str, Any]:
    """`decide` with its counters, latency buckets and log check, and without them, in turns; microseconds.

    The lower quartiles are compared: what other processes of the machine do to the rest is not the metrics'.
    """
    requests = observations(512)
    durations: dict[str, list[int]] = {"with": [], "without": []}
    with bench_instance(inference={"seed": 1}, trainer={"seed": 1}) as instance:
        engine = Engine.attach(instance)
        parts = [(engine.lane, "count"), (engine.lane, "count_decision"), (engine._decision_log, "write")]
        for turn in range(-20, 2 * rounds):
            # with, without, without, with, ...: neither always comes after the other.
            name = "without" if turn % 4 in (1, 2) else "with"
            for owner, method in parts:
                if name == "without":
                    setattr(owner, method, lambda *_: None)
                else:
                    owner.__dict__.pop(method, None)
            for number in range(block):
                key, observation = requests[(turn // 2 * block + number) % len(requests)]
                started = time.perf_counter_ns()
                engine.decide(key, observation)
                if turn >= 0:
                    durations[name].append(time.perf_counter_ns() - started)
        for owner, method in parts:
            owner.__dict__.pop(method, None)
        engine.close()
    quartiles = {name: statistics.quantiles(values)[0] / 1e3 for name, values in durations.items()}
    cost = round(quartiles["with"] - quartiles["without"], 2)
    return {**{name: round(value, 2) for name, value in quartiles.items()}, "cost": cost, "rounds": rounds}


def show(result: dict[str, Any]) -> None:
    """As a table for people."""
    sizes = result["transfer_bytes"]
    print(f"first load: {sizes['first_load'] / 1e3:.1f} kB ({result['history_rows']} steps of history)")
    for path, times in result["api_ms"].items():
        print(f"  {path:24} p50 {times['p50']:7.2f} ms   p99 {times['p99']:7.2f} ms")
    shares = result["cpu_share"]
    print(f"server's share of a core: {shares['alone']:.1%} alone, ", end="")
    print(f"{shares[f'with_{DASHBOARDS}_dashboards']:.1%} with {DASHBOARDS} dashboards")
    decide = result["engine_decide_us"]
    print(f"decide: {decide['with']} us, {decide['without']} us without metrics: they cost {decide['cost']} us")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="short, to see that it works; the figures mean little")
    parser.add_argument("--watch", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        watch(options.watch)
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    result = over_http(100 if options.quick else HOUR, 4.0 if options.quick else 30.0)
    with awake_cores():
        result["engine_decide_us"] = cost_of_metrics(50 if options.quick else 4000)
    result["machine"] = machine()
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
