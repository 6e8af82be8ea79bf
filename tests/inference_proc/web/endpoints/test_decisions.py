"""The data of the decision dashboard."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from server_kit import ask, browser_observation
from tandem.inference_proc.web.endpoints.decisions import NnDashboard
from tandem.shared.telemetry.stats import training_stats


def play(server: Any, count: int, **options: Any) -> list[dict[str, Any]]:
    """Send observations and return the replies."""
    with server.connect("/ws/player") as client:
        client.recv(timeout=10)
        return [ask(client, browser_observation(**options)) for _ in range(count)]


def test_before_the_first_decision_it_is_complete_and_empty(start_server: Callable[..., Any]) -> None:
    """Every section is there from the start; the pipeline is null."""
    body = start_server().get("/api/nn-dashboard").json()
    assert {
        "timestamp",
        "uptime_seconds",
        "nn_decisions",
        "gate_behavior",
        "training",
        "entropy",
        "game_state",
        "pipeline",
    } <= set(body)
    assert body["pipeline"] is None
    assert body["nn_decisions"]["chunk_frequency"] == [0] * 400
    assert body["nn_decisions"]["type_counts"] == {"energy": 0, "combat": 0}
    assert body["nn_decisions"]["confidence_histogram"] == [0] * 10
    assert body["gate_behavior"]["decision_reasons"] == {
        "positive_reward": 0,
        "negative_reward": 0,
        "insufficient_energy": 0,
    }
    assert body["training"]["avg_loss"] is None


def test_it_shows_what_was_decided(start_server: Callable[..., Any]) -> None:
    """Heatmap, histogram, reasons, components, rewards and the newest decision agree with the replies."""
    server = start_server(gate={"reward_threshold": -100.0})
    replies = play(server, 30, mining=(47, 52), protectors=(60,))
    poor = play(server, 5, queen=0.0)
    started = time.perf_counter()
    response = server.get("/api/nn-dashboard")
    assert time.perf_counter() - started < 5.0
    body = response.json()
    decisions = body["nn_decisions"]
    sent = [reply["data"]["spawnChunk"] for reply in replies]
    assert {reply["type"] for reply in replies} == {"spawn_decision"}
    assert decisions["chunk_sent"] == np.bincount(sent, minlength=400).tolist()
    assert sum(decisions["chunk_skipped"]) == 5
    assert sum(decisions["chunk_frequency"]) == 35
    assert sum(decisions["type_counts"].values()) == 35
    assert sum(decisions["confidence_histogram"]) == 35
    assert len(decisions["recent_decisions"]) == 10
    assert [item["sent"] for item in decisions["recent_decisions"]] == [False] * 5 + [True] * 5
    assert {"chunk", "type", "confidence", "sent", "timestamp"} <= set(decisions["recent_decisions"][0])
    gate = body["gate_behavior"]
    assert gate["pass_rate"] == pytest.approx(30 / 35)
    assert gate["decision_reasons"] == {"positive_reward": 30, "negative_reward": 0, "insufficient_energy": 5}
    assert set(gate["avg_components"]) == {"survival", "disruption", "location", "exploration"}
    assert gate["wait_streak"] == 5
    assert len(gate["reward_history"]) == 35
    assert body["game_state"] == {
        "queen_energy": 0.0,
        "workers_visible": 1,
        "protectors_visible": 0,
        "territory_id": "territory_0_0",
    }
    pipeline = body["pipeline"]
    assert pipeline["decision"]["action"] == "WAIT"
    assert pipeline["decision"]["reason"] == poor[-1]["data"]["reason"]
    assert pipeline["nn_output"]["confidence"] == pytest.approx(poor[-1]["data"]["confidence"])
    assert pipeline["nn_inference"]["nn_decision"] == "spawn"
    assert pipeline["observation"]["worker_chunks"] == [47]
    assert pipeline["combined_reward"]["expected_reward"] is None
    assert set(pipeline["gate_components"]) == {"survival", "disruption", "location", "exploration", "weights"}
    entropy = body["entropy"]
    assert {"current", "max", "ratio", "effective_actions", "total_actions", "history", "health"} <= set(entropy)
    assert entropy["health"] == "healthy"


@pytest.mark.parametrize("loss", [0.25, float("nan"), float("inf")])
def test_training_is_shown_as_everywhere(start_server: Callable[..., Any], loss: float) -> None:
    """Steps, loss, version and size are those of the statistics, also where there is no finite loss to show."""
    server = start_server()
    play(server, 3, queen=0.0)
    control, service = server.engine.control, server.service
    for name, value in {"total_steps": 40, "training_steps": 7, "average_loss": loss}.items():
        control.set(f"metrics.{name}", value)
    stats = training_stats(control)
    shown = NnDashboard(server.engine, service.handler, service.access).collect()["training"]
    expected = {
        "total_steps": stats["training"]["total_steps"],
        "avg_loss": stats["training"]["average_loss"],
        "model_version": stats["model_version"],
        "buffer_size": stats["buffer"]["size"],
        "stats": {"training_count": stats["training"]["total_steps"]},
    }
    assert {name: shown[name] for name in expected} == expected
    assert shown["total_steps"] == 40
    assert shown["buffer_size"] == 3


def test_a_reset_starts_the_counts_again_and_keeps_what_was_learned(start_server: Callable[..., Any]) -> None:
    """POST /api/nn-dashboard/reset empties the dashboard, not the buffer."""
    server = start_server()
    play(server, 5, queen=0.0)
    assert server.request("POST", "/api/nn-dashboard/reset").json()["status"] == "success"
    assert sum(server.get("/api/nn-dashboard").json()["nn_decisions"]["chunk_frequency"]) == 0
    assert server.get("/api/training/stats").json()["buffer"]["size"] == 5
    play(server, 2, queen=0.0)
    assert sum(server.get("/api/nn-dashboard").json()["nn_decisions"]["chunk_frequency"]) >= 2


def test_another_application_has_no_parts_of_the_game(start_server: Callable[..., Any], toy_application: str) -> None:
    """Without a game there is neither pipeline nor game state; the heads keep their own names."""
    server = start_server(application=toy_application)
    with server.connect() as client:
        for number in range(4):
            ask(client, {"type": "decide", "key": f"k{number}", "observation": [1, 2, 3, 4]})
            ask(client, {"type": "reward", "key": f"k{number}", "value": 0.5})
    body = server.get("/api/nn-dashboard").json()
    assert "pipeline" not in body
    assert "game_state" not in body
    assert len(body["nn_decisions"]["chunk_frequency"]) == 5
    assert sum(body["nn_decisions"]["chunk_frequency"]) == 4
    assert body["training"]["real_rewards"] == [0.5] * 4
