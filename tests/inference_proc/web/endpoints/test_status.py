"""The REST endpoints about the server itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from server_kit import ask, browser_observation


def test_health_says_degraded_and_why_without_a_trainer(server: Any) -> None:
    """GET /health is 200 with every field; without a trainer it is degraded with a reason, with one it is healthy."""
    body = server.get("/health").json()
    assert body["status"] == "degraded"
    assert "trainer" in body["reasons"][0]
    server.engine.control.set("trainer.progress_ns", time.monotonic_ns())
    response = server.get("/health")
    server.engine.control.set("trainer.progress_ns", 0)
    body = response.json()
    assert response.status_code == 200
    assert body["status"] == "healthy"
    assert "reasons" not in body
    assert (body["ai_engine"], body["neural_network"]) == ("running", "ready")
    assert type(body["gpu_acceleration"]) is bool
    assert body["active_connections"] == 0
    assert body["model_version"] == server.engine.model_version
    assert set(body["system_metrics"]) == {"uptime_seconds", "environment", "log_level"}
    assert set(body["performance_metrics"]) == {"memory_mb", "cpu_percent", "threads"}
    assert abs(body["timestamp"] - time.time()) < 60


def test_before_the_start_health_and_readiness_are_503(start_server: Callable[..., Any]) -> None:
    """A service that was not started answers 503 to /health and /readyz, and is alive."""
    server = start_server()
    server.service.started = False
    assert server.get("/health").status_code == 503
    assert server.get("/readyz").status_code == 503
    assert server.get("/livez").status_code == 200
    server.service.started = True
    assert server.get("/readyz").status_code == 200


def test_the_index_names_service_and_state(server: Any) -> None:
    """GET / says what this is."""
    body = server.get("/").json()
    assert body["service"] == "tandem"
    assert body["application"] == "tandem.queen"
    assert body["state"] in ("running", "degraded")


def test_system_status_shows_both_processes(server: Any) -> None:
    """GET /system/status has the instance, the trainer and the engine's counts."""
    body = server.get("/system/status").json()
    assert body["instance"] == server.name
    assert body["trainer"] == {"enabled": True, "alive": False}
    assert body["engine"]["capacity"] == 512


def test_message_statistics_count_what_was_answered(start_server: Callable[..., Any]) -> None:
    """GET /message-stats counts successes and both kinds of errors, and lists the types."""
    server = start_server()
    empty = server.get("/message-stats").json()
    assert empty["success_rate"] == 1.0
    with server.connect() as client:
        ask(client, browser_observation())
        ask(client, {"type": "ping"})
        ask(client, "nonsense")
    body = server.get("/message-stats").json()
    assert body["statistics"] == {
        "total_processed": 3,
        "successful": 2,
        "failed": 1,
        "validation_errors": 1,
        "processing_errors": 0,
    }
    assert body["success_rate"] == pytest.approx(2 / 3)
    assert "observation_data" in body["supported_message_types"]


def test_connections_lists_who_is_there(server: Any) -> None:
    """GET /connections shows each open connection with its counts."""
    with server.connect("/ws/game_client_5") as client:
        client.recv(timeout=10)
        ask(client, {"type": "ping"})
        body = server.get("/connections").json()
    assert body["active_connections"] == 1
    assert body["connections"][0]["clientId"] == "game_client_5"
    assert body["connections"][0]["frames"] == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_reset_nn_resets_by_either_method(server: Any, method: str) -> None:
    """Clients use GET; both methods ask the trainer for new weights and empty the buffer."""
    with server.connect() as client:
        for _ in range(3):
            ask(client, browser_observation())
        response = server.request(method, "/reset-nn")
    assert response.status_code == 200
    body = response.json()
    assert body["status"] == "success"
    assert body["message"]
    assert body["details"]["model_version"] >= 0
    assert server.get("/api/training/stats").json()["buffer"]["size"] == 0


def test_a_reset_that_fails_is_an_error(
    server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in the reset is a 500 with a message."""

    def fail() -> int:
        raise RuntimeError("no room")

    monkeypatch.setattr(server.engine, "reset", fail)
    response = server.get("/reset-nn")
    assert response.status_code == 500
    assert response.json()["status"] == "error"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_progress_is_always_the_default(server: Any, method: str) -> None:
    """The game's progress endpoint answers with the defaults."""
    body = server.request(method, "/api/progress?player_id=default").json()
    assert body["success"] is True
    assert body["data"] == {
        "currentLevel": 0,
        "highestTitle": "Initiate",
        "totalUpgradeBonus": 0,
        "completedLevels": [],
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"logs":[{"level":"info"}],"source":"browser"}', 204),
        (b'{"logs":[]}', 204),
        (b"", 400),
        (b"no json", 400),
        (b"[" * 50_000, 400),
        (b'{"logs":"x"}', 400),
        (b"[]", 400),
        (b'"' + b"x" * (1 << 20) + b'"', 413),
    ],
    ids=["logs", "empty", "nothing", "text", "deep", "mistyped", "array", "huge"],
)
def test_client_logs_are_taken_or_refused_clearly(server: Any, body: bytes, status: int) -> None:
    """POST /logs answers 204, or 400 and 413 for what is not a list of logs."""
    assert server.request("POST", "/logs", content=body).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nope", 404), ("POST", "/health", 405), ("GET", "/logs", 405), ("GET", "/ws", 404), ("PUT", "/", 405)],
)
def test_what_does_not_exist_is_json_too(server: Any, method: str, path: str, status: int) -> None:
    """Unknown paths and methods are answered with a JSON error."""
    response = server.request(method, path)
    assert response.status_code == status
    assert response.json()["status"] == "error"


def test_the_games_origins_may_read_from_a_browser(server: Any) -> None:
    """CORS allows the configured origins and no other."""
    for origin, allowed in (("http://localhost:3010", True), ("http://localhost:8080", True), ("http://evil", False)):
        response = server.get("/health", headers={"origin": origin})
        assert (response.headers.get("access-control-allow-origin") == origin) is allowed
