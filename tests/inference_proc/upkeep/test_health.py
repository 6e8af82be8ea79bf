"""Fail static: whatever is missing, full or broken, observations are answered, and `/health` says what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from server_kit import ask, browser_observation
from tandem.inference_proc.engine import Engine
from tandem.inference_proc.upkeep.health import Health
from tandem.shared.memory.segments import remove_instance
from tandem.shared.telemetry.learning_reasons import learning_notices, learning_reasons
from tandem.supervisor.display import status

OPEN_GATE = {"reward_threshold": -100.0, "hot_reload_interval": 0.01}
ANSWERS = ("spawn_decision", "no_action")


def reasons(server: Any) -> list[str]:
    """What `/health` gives as reasons, but for the trainer that these tests do not start."""
    response = server.get("/health")
    assert response.status_code == 200
    body = response.json()
    assert body["status"] == ("degraded" if "reasons" in body else "healthy")
    return [reason for reason in body.get("reasons", []) if not reason.startswith("the trainer does not")]


def observe(server: Any, territory: str = "territory_0_0") -> dict[str, Any]:
    """One observation of a territory, and its answer."""
    with server.connect("/ws/game_client_1") as client:
        client.recv(timeout=10)
        return ask(client, browser_observation(territory=territory))


def test_without_a_trainer_it_decides_and_says_so(server: Any) -> None:
    """No trainer was ever there: the weights of version 0 decide."""
    reply = observe(server)
    assert reply["type"] in ANSWERS
    body = server.get("/health").json()
    assert body["status"] == "degraded"
    assert body["reasons"][0].startswith("the trainer does not make progress")
    with server.connect() as client:
        assert ask(client, {"type": "health_check"})["data"]["status"] == "degraded"


def test_a_gate_file_that_is_refused_at_the_start(start_server: Callable[..., Any]) -> None:
    """Every default is used; the reason names file and key, not the folder."""
    server = start_server(gate={"kill_range": -1.0})
    assert observe(server)["type"] in ANSWERS
    (reason,) = reasons(server)
    assert "every default is used" in reason
    assert "simulation_gate.yaml: kill_range: -1.0 is below 0" in reason
    assert "/" not in reason


def test_a_gate_file_that_breaks_while_the_server_runs(
    start_server: Callable[..., Any], wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    """The last good one stays in force, and the reason goes with its cause."""
    server = start_server(gate=OPEN_GATE)
    assert observe(server)["type"] == "spawn_decision"
    assert reasons(server) == []
    path = tmp_path / "simulation_gate.yaml"
    good = path.read_text(encoding="utf-8")
    path.write_text("reward_threshold: [", encoding="utf-8")

    def answered() -> list[str]:
        assert observe(server)["type"] == "spawn_decision", "the open gate stays in force"
        return reasons(server)

    (reason,) = wait_until(answered, "the broken file is noticed")
    assert "the last good one stays: simulation_gate.yaml: is not YAML" in reason
    path.write_text(good, encoding="utf-8")
    wait_until(lambda: not answered(), "the repaired file is taken over")


def test_a_full_pending_table(start_server: Callable[..., Any]) -> None:
    """Each new decision gives up the oldest one and is answered; rewards that come in make room."""
    server = start_server(gate=OPEN_GATE, inference={"pending_capacity": 3})
    for number in range(3):
        assert observe(server, f"territory_{number}")["type"] == "spawn_decision"
    (reason,) = reasons(server)
    assert "3 decisions wait for their reward" in reason
    assert "inference.pending_capacity" in reason
    for number in range(3, 6):
        assert observe(server, f"territory_{number}")["type"] == "spawn_decision"
    lane = server.engine.lane
    assert (lane.get("pending"), lane.get("dropped"), lane.get("decided")) == (3, 3, 6)
    # Decides anew only when the last decision of the territory is rewarded: its place is free in between.
    assert server.engine.reward("game_client_1/territory_5", 0.5)
    assert reasons(server) == []


def test_checkpoints_that_cannot_be_saved(server: Any) -> None:
    """The trainer's count of failures in a row is a reason, until one is saved."""
    server.engine.control.set("trainer.unsaved", 2)
    (reason,) = reasons(server)
    assert reason.startswith("the last 2 checkpoint(s) could not be saved")
    server.engine.control.set("trainer.unsaved", 0)
    server.engine.control.set("supervisor.unwritten", 1)
    assert any("a log cannot be written" in reason for reason in reasons(server))
    server.engine.control.set("supervisor.unwritten", 0)
    assert reasons(server) == []


def test_what_keeps_the_instance_from_learning(server: Any) -> None:
    """`/health`, the dashboard's picture and `/metrics` name it as `ctl status` does; a notice degrades nothing."""
    control = server.engine.control
    control.set("trainer.still_in_row", 7)
    (reason,) = reasons(server)
    assert reason == learning_reasons(control)["weights_still"]
    assert reason in status.status(control.instance)["reasons"]
    assert reason in server.get("/system/status").json()["reasons"]
    assert reason in server.get("/api/training/live").json()["troubles"]
    assert 'tandem_learning_problem{problem="weights_still"} 1.0' in server.get("/metrics").text
    control.set("trainer.still_in_row", 0)
    assert reasons(server) == []
    control.set("trainer.abandoned", 2)
    body = server.get("/health").json()
    assert body["notices"] == status.status(control.instance)["notices"] == learning_notices(control)
    assert "are never taken any more" in body["notices"][0]
    assert reasons(server) == []
    control.set("trainer.abandoned", 0)


def test_failures_on_the_decision_path_count_for_a_minute(
    engine_of: Callable[..., Engine], rewarding_application: str
) -> None:
    """A gate that raises holds the action back; a beat notices it, and 60 s later it is forgotten."""
    engine = engine_of(application=rewarding_application, trainer={"enabled": False})
    now = [0.0]
    health = Health(engine.control, clock=lambda: now[0])
    assert health.reasons(engine.application, is_stalled=False) == []
    assert engine.decide("a", np.array([0.95, 0.5], np.float32)).reason == "gate_error"
    health.look()
    now[0] = 59.0
    (reason,) = health.reasons(engine.application, is_stalled=False)
    assert "failed within the last 60 s (lane.errors: 1)" in reason
    now[0] = 61.0
    assert health.reasons(engine.application, is_stalled=False) == []


def test_an_instance_that_was_stopped_is_the_only_reason(engine_of: Callable[..., Engine]) -> None:
    """Decisions go on; what the memory that is left says about the trainer no longer matters."""
    engine = engine_of()
    remove_instance(engine.instance.name)
    assert engine.decide("a", np.zeros(4, np.float32)).version == 0
    (reason,) = engine.troubles()
    assert reason.startswith("the instance was stopped")


def test_an_application_that_cannot_say_how_it_is(engine_of: Callable[..., Engine]) -> None:
    """Its exception is a reason like another; `/health` still answers."""

    def fail() -> list[str]:
        raise RuntimeError("no file")

    engine = engine_of(trainer={"enabled": False})
    engine.application = dataclasses.replace(engine.application, troubles=fail)
    (reason,) = engine.troubles()
    assert "no file" in reason
