"""The dashboard's picture of the moment, its stream, and what an operator may ask over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from server_kit import ask, browser_observation
from tandem.shared.memory.processes import own_identity, uptime_of


def append_steps(server: Any, first: int, last: int) -> None:
    """Write rows to the step history as a trainer would."""
    for version in range(first, last + 1):
        server.engine.control.append_history({"version": float(version), "loss": 0.25, "actual_reward": float("nan")})


def test_the_picture_has_statistics_steps_processes_and_times(start_server: Callable[..., Any]) -> None:
    """GET /api/training/live agrees with the statistics and the decisions that were made."""
    server = start_server(gate={"reward_threshold": -100.0})
    with server.connect() as client:
        for _ in range(10):
            ask(client, browser_observation())
    append_steps(server, 1, 5)
    body = server.get("/api/training/live?since=2&limit=100").json()
    assert body["application"] == "tandem.queen"
    assert body["instance"] == server.name
    assert [row["version"] for row in body["rows"]] == [3.0, 4.0, 5.0]
    assert body["rows"][0]["loss"] == 0.25
    assert body["rows"][0]["actual_reward"] is None
    assert body["stats"]["buffer"]["send_count"] == 10
    assert sum(body["latency"]["counts"]) == 10
    assert len(body["latency"]["bounds_us"]) == len(body["latency"]["counts"])
    assert body["processes"]["trainer"]["state"] == "stopped"
    assert body["processes"]["server 0"]["healthy"] is True
    assert body["troubles"]


def test_every_uptime_is_that_of_the_process(server: Any) -> None:
    """The service began later than its process; every endpoint says how long the process lives."""
    parser = pytest.importorskip("prometheus_client.parser")
    families = parser.text_string_to_metric_families(server.get("/metrics").text)
    scraped = {
        sample.labels["process"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "tandem_process_uptime_seconds"
    }
    shown = {
        "the dashboard": server.get("/api/training/live").json()["processes"]["server 0"]["uptime_s"],
        "health": server.get("/health").json()["system_metrics"]["uptime_seconds"],
        "the status": server.get("/system/status").json()["uptime_seconds"],
        "the decision dashboard": server.get("/api/nn-dashboard").json()["uptime_seconds"],
        "metrics": scraped["inference"],
    }
    expected = uptime_of(own_identity()[1])
    assert shown == {name: pytest.approx(expected, abs=1.0) for name in shown}


def test_a_decisions_duration_lies_within_the_bound_of_its_bucket() -> None:
    """The bounds that the picture names are those by which lanes count."""
    from tandem.inference_proc.web.endpoints.overview import latencies
    from tandem.shared.memory.durations import DECISION

    class Empty:
        """A reading without lanes."""

        latency_counts = ()

    bounds: list[float] = latencies(Empty())["bounds_us"]  # type: ignore[arg-type]
    for nanoseconds in (1, 16_000, 16_001, 22_627, 22_628, 100_000, 1_000_000, 3_000_000):
        bucket = DECISION.bucket(nanoseconds)
        assert nanoseconds / 1e3 <= bounds[bucket] * 1.000001
        assert bucket == 0 or nanoseconds / 1e3 > bounds[bucket - 1] * 0.999999


def test_the_stream_sends_new_steps_as_they_come(start_server: Callable[..., Any]) -> None:
    """GET /api/training/stream sends an event at once and then each second, with the steps since the last."""
    server = start_server()
    append_steps(server, 1, 3)
    events: list[dict[str, Any]] = []
    with httpx.stream("GET", f"{server.url}/api/training/stream?since=1", trust_env=False, timeout=20) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))
                if len(events) == 1:
                    append_steps(server, 4, 6)
                if len(events) == 3:
                    break
    assert [[row["version"] for row in event["rows"]] for event in events] == [[2.0, 3.0], [4.0, 5.0, 6.0], []]


def test_an_open_stream_does_not_hold_up_a_stop(start_server: Callable[..., Any]) -> None:
    """When the server stops, streams end by themselves, and cleanly."""
    server = start_server()
    started, ended = threading.Event(), threading.Event()

    def read() -> None:
        with httpx.stream("GET", f"{server.url}/api/training/stream", trust_env=False, timeout=30) as response:
            for line in response.iter_lines():
                started.set()
                if line == "event: end":
                    ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(20)
    server.server.should_exit = True
    assert ended.wait(20)
    reader.join(20)


@pytest.mark.parametrize("path", ["live", "stream"])
def test_a_bad_range_is_refused(server: Any, path: str) -> None:
    """A parameter out of range is a 400."""
    assert server.get(f"/api/training/{path}?since=x").status_code == 400


def test_pause_and_resume_set_the_shared_flag(server: Any) -> None:
    """POST pause and resume take effect in the control segment; GET does not exist."""
    assert server.request("POST", "/api/training/pause").json()["status"] == "success"
    assert server.engine.control.get("command.pause") == 1
    assert server.get("/api/training/stats").json()["training"]["paused"] is True
    assert server.request("POST", "/api/training/resume").status_code == 200
    assert server.engine.control.get("command.pause") == 0
    assert server.get("/api/training/pause").status_code == 405


@pytest.mark.parametrize("version", [-1, 0, "latest", True, 1.5, [1], 2**70])
def test_a_bad_rollback_version_is_refused(server: Any, version: Any) -> None:
    """A version that cannot be one is a 400, and nothing is asked of the trainer."""
    before = server.engine.control.get("command.sequence")
    assert server.request("POST", "/api/training/rollback", json={"version": version}).status_code == 400
    assert server.engine.control.get("command.sequence") == before


def test_a_real_trainer_obeys(start_server: Callable[..., Any], wait_until: Callable[..., Any]) -> None:
    """Checkpoint and rollback are answered with the version; a missing checkpoint is a 404; health is then healthy."""
    server = start_server(trainer={"training_interval": 0.02, "min_batch_size": 2})
    trainer = subprocess.Popen([sys.executable, "-m", "tandem.trainer_proc", "--instance", server.name])
    try:
        with server.connect() as client:
            deadline = time.monotonic() + 60
            while server.engine.model_version < 5 and time.monotonic() < deadline:
                ask(client, browser_observation(queen=0.0))
        assert server.engine.model_version >= 5
        assert server.get("/health").json()["status"] == "healthy"
        saved = server.request("POST", "/api/training/checkpoint", timeout=30).json()
        assert saved["status"] == "success"
        before = server.engine.model_version
        rolled = server.request("POST", "/api/training/rollback", json={"version": saved["version"]}, timeout=30)
        assert rolled.status_code == 200
        assert rolled.json()["version"] > before
        missing = server.request("POST", "/api/training/rollback", json={"version": 10**9}, timeout=30)
        assert missing.status_code == 404
        rows = server.get("/api/training/live?since=0").json()["rows"]
        assert 1.0 in [row["event"] for row in rows]
        with server.connect() as client:
            generation = server.engine.control.get("generation")
            answer = ask(client, {"type": "reset_nn", "data": {"confirm": True}})
            assert answer["data"]["status"] == "success"
            wait_until(lambda: server.engine.control.get("generation") == generation + 1, "the trainer resets")
    finally:
        trainer.terminate()
        assert trainer.wait(timeout=30) == 0
