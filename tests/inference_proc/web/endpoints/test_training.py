"""The REST endpoints about training."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from server_kit import ask, browser_observation


def test_stats_have_every_name_of_both_document_generations(server: Any) -> None:
    """GET /api/training/stats is JSON with every documented key; the average loss is null before the first step."""
    with server.connect() as client:
        ask(client, browser_observation())
        ask(client, browser_observation(queen=0.0))
    response = server.get("/api/training/stats")
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert {"enabled", "is_running", "model_version", "training", "buffer", "model", "config"} <= set(body)
    assert {
        "is_running",
        "model_version",
        "training_steps",
        "total_steps",
        "total_samples_trained",
        "total_errors",
        "steps_per_second",
        "average_loss",
        "average_batch_size",
        "training_time_ms",
        "average_step_time_ms",
        "skipped_steps",
        "idle_ticks",
        "bounded_ticks",
        "overruns",
        "uptime_seconds",
    } <= set(body["training"])
    assert {
        "size",
        "buffer_size",
        "capacity",
        "utilization",
        "pending_count",
        "completed_count",
        "total_added",
        "total_sampled",
        "send_count",
        "wait_count",
    } <= set(body["buffer"])
    assert {"model_version", "steps_per_second"} <= set(body["model"])
    assert body["training"]["average_loss"] is None
    assert body["buffer"]["send_count"] >= 1
    assert body["buffer"]["wait_count"] >= 1
    assert body["config"]["trainer"]["batch_size"] == 32


def test_history_holds_the_steps_after_a_version(server: Any) -> None:
    """GET /api/training/history?since=V returns the rows above V, oldest first; NaN is null."""
    control = server.engine.control
    for version in range(1, 6):
        control.append_history({"version": float(version), "loss": 0.5, "actual_reward": float("nan")})
    rows = server.get("/api/training/history?since=3").json()["rows"]
    assert [row["version"] for row in rows] == [4.0, 5.0]
    assert rows[0]["loss"] == 0.5
    assert rows[0]["actual_reward"] is None
    assert len(server.get("/api/training/history").json()["rows"]) == 5
    assert len(server.get("/api/training/history?limit=2").json()["rows"]) == 2


@pytest.mark.parametrize("query", ["since=x", "since=-1", "since=1.5", "since=" + "9" * 30, "limit=99999", "since="])
def test_a_bad_query_is_refused_by_name(server: Any, query: str) -> None:
    """A parameter that is no whole number in range is a 400 that names it."""
    response = server.get(f"/api/training/history?{query}")
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json()["error"]


def test_a_long_answer_is_compressed_and_the_stream_is_not(server: Any) -> None:
    """A client that accepts gzip gets the history compressed; each event of the stream arrives when it happens."""
    control = server.engine.control
    for version in range(100, 200):
        control.append_history({"version": float(version), "loss": 1.0 / version})
    plain = server.get("/api/training/history?since=99", headers={"accept-encoding": "identity"})
    packed = server.get("/api/training/history?since=99", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(plain.content) / 3
    assert packed.json()["rows"] == plain.json()["rows"]
    with httpx.stream(
        "GET", f"{server.url}/api/training/stream", headers={"accept-encoding": "gzip"}, trust_env=False
    ) as stream:
        assert "content-encoding" not in stream.headers
        assert next(stream.iter_lines()).startswith("data: {")
