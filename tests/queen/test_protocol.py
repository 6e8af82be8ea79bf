"""The game's protocol, message by message, over a real socket."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from server_kit import (
    RunningServer,
    ask,
    assert_silent,
    browser_observation,
    receive,
    simulator_observation,
)

SUPPORTED = {
    "observation_data",
    "spawn_result",
    "ping",
    "health_check",
    "training_status_request",
    "background_training_stats_request",
    "gate_stats_request",
    "reset_nn",
    "reconnect",
    "heartbeat_response",
    "queen_death",
    "queen_success",
    "game_outcome",
    "difficulty_status_request",
    "learning_progress_request",
}
DEATH = {
    "queenId": "q1",
    "generation": 3,
    "deathLocation": {"x": 1.5, "y": 0, "z": -2},
    "deathCause": "protector_assault",
}
BAD_ENTITIES = [
    None,
    7,
    "x",
    [],
    {},
    {"chunkId": -1},
    {"chunkId": 10**30},
    {"chunkId": "47"},
    {"chunkId": True},
    {"chunkId": 1e308},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose gate lets everything through that the queen can pay for."""
    running = RunningServer(tmp_path_factory.mktemp("protocol"), gate={"reward_threshold": -100.0})
    yield running
    running.close()


@pytest.fixture(scope="module")
def cautious(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose gate blocks everything."""
    running = RunningServer(tmp_path_factory.mktemp("cautious"), gate={"reward_threshold": 100.0})
    yield running
    running.close()


def lane(server: RunningServer, field: str) -> Any:
    """A field of the lane that the server writes."""
    return server.engine.control.get(f"lane.{server.engine.lane.index}.{field}")


@pytest.mark.parametrize("observation", [browser_observation(), simulator_observation()], ids=["browser", "simulator"])
def test_a_decision_to_send_is_a_spawn_decision(server: RunningServer, observation: dict[str, Any]) -> None:
    """SEND is answered with spawn_decision and every field that clients read, in their types."""
    with server.connect() as client:
        before = time.time()
        reply = ask(client, {**observation, "messageId": "m1"})
    data = reply["data"]
    assert set(reply) == {"type", "timestamp", "messageId", "clientId", "data"}
    assert (reply["type"], reply["messageId"]) == ("spawn_decision", "m1")
    assert before - 1 <= reply["timestamp"] <= time.time() + 1
    assert 0 <= data["spawnChunk"] < 400
    assert type(data["spawnChunk"]) is int
    assert data["spawnType"] in ("energy", "combat")
    assert 0.0 < data["confidence"] <= 1.0
    assert type(data["confidence"]) is float
    assert 0.0 < data["typeConfidence"] <= 1.0
    assert data["territoryId"] == observation["data"]["territoryId"]
    assert data["skip"] is False
    assert (data["gateDecision"], data["gateReason"]) == ("SEND", "positive_reward")
    assert math.isfinite(data["expectedReward"])
    assert data["modelVersion"] == server.engine.model_version
    assert "lastReward" not in data
    assert "rewardTrend" not in data


def test_a_blocked_decision_is_no_action(cautious: RunningServer) -> None:
    """WAIT is answered with no_action, the reason and the gate's figures."""
    with cautious.connect() as client:
        reply = ask(client, browser_observation())
    data = reply["data"]
    assert reply["type"] == "no_action"
    assert data["status"] == "processed"
    assert data["action"] == "none"
    assert data["territoryId"] == "territory_0_0"
    assert data["reason"] == data["gateReason"] == "negative_reward"
    assert data["gateDecision"] == "WAIT"
    assert 0.0 < data["confidence"] <= 1.0
    assert math.isfinite(data["expectedReward"])
    assert data["modelVersion"] == cautious.engine.model_version
    assert "spawnChunk" not in data


def test_an_action_that_cannot_be_paid_for_waits_with_a_null_reward(server: RunningServer) -> None:
    """An expected reward of -inf is null on the wire; the confidence stays a number."""
    with server.connect() as client:
        data = ask(client, browser_observation(queen=0.0))["data"]
    assert data["reason"] == "insufficient_energy"
    assert data["expectedReward"] is None
    assert type(data["confidence"]) is float


def test_the_last_reward_comes_from_the_second_observation_on(server: RunningServer) -> None:
    """lastReward and rewardTrend are absent first and then numbers and words, for each territory by itself."""
    with server.connect() as client:
        first = ask(client, browser_observation())["data"]
        second = ask(client, browser_observation())["data"]
        other = ask(client, browser_observation(territory="territory_1_1"))["data"]
        later = [ask(client, browser_observation())["data"] for _ in range(6)][-1]
    assert "lastReward" not in first
    assert -1.0 <= second["lastReward"] <= 1.0
    assert second["rewardTrend"] == "insufficient_data"
    assert "lastReward" not in other
    assert later["rewardTrend"] in ("improving", "declining", "stable")


def test_the_next_observation_completes_the_pending_decision(server: RunningServer) -> None:
    """A SEND is pending until the next observation of the same client and territory, and then an experience."""
    from tandem.shared.experiences.sampler import ReplayReader

    with server.connect() as client:
        completed, pending = lane(server, "completed"), lane(server, "pending")
        ask(client, browser_observation(territory="territory_9_9"))
        assert lane(server, "pending") == pending + 1
        ask(client, browser_observation(territory="territory_9_9"))
        assert lane(server, "pending") == pending + 1
        assert lane(server, "completed") == completed + 1
    rows = ReplayReader(server.engine.control, server.engine.instance.records).recent(20)
    assert b"territory_9_9" in [bytes(row["key"]) for row in rows]


def test_two_anonymous_clients_with_one_territory_name_do_not_mix(server: RunningServer) -> None:
    """Each connection has its own state: the second simulator's first observation rewards nothing of the first's."""
    with server.connect() as first, server.connect() as second:
        assert "lastReward" not in ask(first, simulator_observation(1))["data"]
        assert "lastReward" not in ask(second, simulator_observation(1))["data"]
        assert "lastReward" in ask(first, simulator_observation(2))["data"]


def test_an_anonymous_clients_state_dies_with_its_connection(
    server: RunningServer, wait_until: Callable[..., Any]
) -> None:
    """What is pending for a connection on /ws is dropped when it closes."""
    wait_until(lambda: len(server.service.connections) == 0, "earlier connections are gone")
    before = lane(server, "pending")
    with server.connect() as client:
        ask(client, simulator_observation())
        assert lane(server, "pending") == before + 1
    wait_until(lambda: lane(server, "pending") == before, "the pending decision is dropped")


def test_a_named_clients_state_survives_a_reconnect(server: RunningServer) -> None:
    """The observation after a reconnect rewards the decision before it."""
    for expected in (False, True):
        with server.connect("/ws/game_client_42") as client:
            assert receive(client)["type"] == "reconnect_confirmation"
            data = ask(client, browser_observation(territory="territory_4_2"))["data"]
            assert ("lastReward" in data) is expected


def test_a_failed_spawn_earns_the_failed_reward_once(server: RunningServer) -> None:
    """spawn_result completes the matching decision with -0.5, gets no reply, and the next observation adds nothing."""
    with server.connect() as client:
        sent = ask(client, simulator_observation(1))["data"]
        completed, total = lane(server, "completed"), lane(server, "reward_sum")
        result = {
            "type": "spawn_result",
            "success": False,
            "spawnChunk": sent["spawnChunk"],
            "spawnType": sent["spawnType"],
            "reason": "insufficient_energy",
            "tick": 77,
        }
        for _ in range(2):
            client.send(json.dumps(result))
            assert_silent(client)
            assert lane(server, "completed") == completed + 1
            assert lane(server, "reward_sum") == pytest.approx(total - 0.5)
        ask(client, simulator_observation(2))
        assert lane(server, "completed") == completed + 1
        assert lane(server, "reward_sum") == pytest.approx(total - 0.5)


@pytest.mark.parametrize(
    "fields",
    [
        {"success": True, "spawnChunk": 1, "spawnType": "energy"},
        {"success": False, "spawnChunk": 10**6, "spawnType": "energy"},
        {"success": False, "spawnChunk": "1", "spawnType": "energy"},
        {"success": False},
        {"messageId": 7},
        {},
    ],
)
def test_a_spawn_result_never_gets_a_reply(server: RunningServer, fields: dict[str, Any]) -> None:
    """Successful, unmatched or malformed: a reply would be taken for the answer to the next observation."""
    with server.connect() as client:
        ask(client, simulator_observation(1))
        completed = lane(server, "completed")
        client.send(json.dumps({"type": "spawn_result", **fields}))
        assert_silent(client)
        assert lane(server, "completed") == completed


def test_ping_is_answered_with_the_time_it_took(server: RunningServer) -> None:
    """pong carries the request's time and the milliseconds since, for times in seconds and in milliseconds."""
    with server.connect() as client:
        for sent in (time.time() - 2.0, (time.time() - 2.0) * 1e3):
            reply = ask(client, {"type": "ping", "timestamp": sent})
            data = reply["data"]
            assert reply["type"] == "pong"
            assert data["clientId"] == reply["clientId"]
            assert data["serverStatus"] == "healthy"
            assert data["requestTimestamp"] == sent
            assert 1999.0 <= data["responseTime"] < 60_000.0
            assert data["messageStats"]["total_processed"] >= 0
        for other in (None, 5, -1.0, 4e12):
            frame = {"type": "ping"} if other is None else {"type": "ping", "timestamp": other}
            assert ask(client, frame)["data"]["responseTime"] == 0.0


def test_health_check_says_what_runs(server: RunningServer) -> None:
    """health_response is degraded while no trainer makes progress, healthy when it does."""
    control = server.engine.control
    with server.connect() as client:
        reply = ask(client, {"type": "health_check"})
        control.set("trainer.progress_ns", time.monotonic_ns())
        healthy = ask(client, {"type": "health_check"})["data"]["status"]
        control.set("trainer.progress_ns", 0)
    data = reply["data"]
    assert reply["type"] == "health_response"
    assert (data["status"], healthy) == ("degraded", "healthy")
    assert (data["aiEngine"], data["neuralNetwork"]) == ("running", "ready")
    assert type(data["gpuAcceleration"]) is bool
    assert data["messageHandler"]["status"] == "active"
    assert set(data["messageHandler"]["supportedMessageTypes"]) == SUPPORTED
    assert data["messageHandler"]["statistics"]["total_processed"] >= 0
    assert set(data["systemInfo"]) == {"pythonVersion", "pytorchVersion", "memoryUsage"}


def test_training_status_reads_the_shared_counters(server: RunningServer) -> None:
    """training_status names version, iterations, loss, buffer and whether the trainer runs."""
    control = server.engine.control
    with server.connect() as client:
        reply = ask(client, {"type": "training_status_request"})
        control.set("trainer.progress_ns", time.monotonic_ns())
        active = ask(client, {"type": "training_status_request"})["data"]
        control.set("trainer.progress_ns", 0)
    assert reply["type"] == "training_status"
    assert set(reply["data"]) == {
        "status",
        "modelVersion",
        "trainingIterations",
        "averageLoss",
        "bufferSize",
        "isRunning",
    }
    assert (reply["data"]["status"], reply["data"]["isRunning"]) == ("stopped", False)
    assert (active["status"], active["isRunning"]) == ("active", True)
    assert reply["data"]["averageLoss"] is None
    assert reply["data"]["modelVersion"] == server.engine.model_version


def test_background_training_stats_carry_buffer_and_training(server: RunningServer) -> None:
    """The reply's objects are those of GET /api/training/stats."""
    with server.connect() as client:
        ask(client, browser_observation())
        reply = ask(client, {"type": "background_training_stats_request"})
    stats = server.get("/api/training/stats").json()
    assert reply["type"] == "background_training_stats_response"
    assert set(reply["data"]) == {"status", "model_version", "is_running", "buffer", "training"}
    assert set(reply["data"]["buffer"]) == set(stats["buffer"])
    assert set(reply["data"]["training"]) == set(stats["training"])


def test_gate_stats_have_the_gates_three_parts(server: RunningServer) -> None:
    """gate_stats_response carries exploration, metrics and thinking_loop."""
    with server.connect() as client:
        ask(client, browser_observation())
        reply = ask(client, {"type": "gate_stats_request"})
    assert reply["type"] == "gate_stats_response"
    assert set(reply["data"]) == {"exploration", "metrics", "thinking_loop"}
    assert set(reply["data"]["metrics"]) == {"lifetime", "rolling", "recent"}
    assert reply["data"]["metrics"]["lifetime"]["total_sends"] >= 1
    assert reply["data"]["exploration"]["total_chunks"] == 400


@pytest.mark.parametrize("fields", [{}, {"data": None}, {"data": {}}, {"data": {"confirm": False}}], ids=str)
def test_a_reset_without_confirmation_changes_nothing(server: RunningServer, fields: dict[str, Any]) -> None:
    """reset_nn without confirm true asks for confirmation."""
    with server.connect() as client:
        ask(client, browser_observation())
        generation, pending = server.engine.control.get("command.sequence"), lane(server, "pending")
        reply = ask(client, {"type": "reset_nn", **fields})
        assert reply["type"] == "reset_nn_response"
        assert reply["data"]["status"] == "confirmation_required"
        assert reply["data"]["message"]
        assert server.engine.control.get("command.sequence") == generation
        assert lane(server, "pending") == pending


def test_a_confirmed_reset_empties_the_buffer_and_keeps_the_version(server: RunningServer) -> None:
    """reset_nn with confirm true clears what was experienced; the version does not go back."""
    with server.connect() as client:
        ask(client, browser_observation())
        ask(client, browser_observation())
        version = server.engine.model_version
        reply = ask(client, {"type": "reset_nn", "data": {"confirm": True}})
        assert reply["type"] == "reset_nn_response"
        assert reply["data"]["status"] == "success"
        assert reply["data"]["model_version"] >= version
        assert server.get("/api/training/stats").json()["buffer"]["size"] == 0
        assert "lastReward" not in ask(client, browser_observation())["data"]


def test_reconnect_names_both_ids(server: RunningServer) -> None:
    """reconnect_response carries this connection's id and the one the client was known by."""
    with server.connect() as client:
        reply = ask(client, {"type": "reconnect", "data": {"clientId": "game_client_9"}})
    assert reply["type"] == "reconnect_response"
    assert reply["data"] == {
        "status": "reconnected",
        "clientId": reply["clientId"],
        "originalClientId": "game_client_9",
        "missedMessages": [],
        "serverStatus": "healthy",
    }


def test_a_heartbeat_response_gets_no_reply(server: RunningServer) -> None:
    """heartbeat_response is only taken note of."""
    with server.connect() as client:
        client.send(json.dumps({"type": "heartbeat_response"}))
        assert_silent(client)


@pytest.mark.parametrize(
    ("request_frame", "kind", "data"),
    [
        (
            {"type": "queen_death", "data": DEATH},
            "queen_strategy",
            {
                "queenId": "q1",
                "generation": 4,
                "strategies": {},
                "strategy": {"generation": 4},
                "learningInsights": {},
            },
        ),
        (
            {"type": "queen_success", "data": {"queenId": "q1", "generation": 2, "survivalTime": 12.5}},
            "success_training_result",
            {
                "queenId": "q1",
                "generation": 2,
                "reinforcement_type": "positive",
                "training_metrics": {"success": True},
            },
        ),
        (
            {"type": "game_outcome", "data": {"player_won": True, "survival_time": 0}},
            "difficulty_adjustment",
            {"difficultyResult": {"current_difficulty": 0.5, "adjustment_made": False, "adjustment_reason": ""}},
        ),
        (
            {"type": "difficulty_status_request"},
            "difficulty_status",
            {"currentDifficulty": 0.5, "difficultyModifiers": {}, "difficultyInsights": {}},
        ),
        (
            {"type": "learning_progress_request", "data": {"queenId": "q1"}},
            "learning_progress",
            {"queen_id": "q1", "queenId": "q1", "current_generation": 1, "progress": {}},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_games_other_requests_get_their_replies(
    server: RunningServer, request_frame: dict[str, Any], kind: str, data: dict[str, Any]
) -> None:
    """Requests about parts of the game that this server has no opinion about get valid, neutral answers."""
    with server.connect() as client:
        reply = ask(client, {**request_frame, "messageId": "m"})
    assert (reply["type"], reply["messageId"]) == (kind, "m")
    assert reply["data"] == data


@pytest.mark.parametrize(
    "change",
    [
        {"queenId": 1},
        {"generation": 0},
        {"generation": 1.5},
        {"deathCause": "boredom"},
        {"deathLocation": {"x": 1, "y": 2}},
        {"deathLocation": None},
    ],
    ids=str,
)
def test_a_queen_death_with_a_bad_field_names_it(server: RunningServer, change: dict[str, Any]) -> None:
    """A mistyped, missing or impossible field is a VALIDATION_ERROR whose text names it."""
    with server.connect() as client:
        reply = ask(client, {"type": "queen_death", "data": {**DEATH, **change}})
    assert reply["data"]["errorCode"] == "VALIDATION_ERROR"
    assert next(iter(change)) in reply["data"]["error"]


@pytest.mark.parametrize(
    "field", ["timestamp", "miningWorkers", "protectors", "queenEnergy", "playerEnergy", "territoryId"]
)
@pytest.mark.parametrize("value", ["absent", None, True, [{}], "x", {}, 1.5], ids=str)
def test_a_required_field_of_an_observation_is_named_when_it_is_wrong(
    server: RunningServer, field: str, value: Any
) -> None:
    """Each required field missing or of the wrong type: one VALIDATION_ERROR that names it; the right type decides."""
    fits = {
        "timestamp": (int, float),
        "miningWorkers": (list,),
        "protectors": (list,),
        "queenEnergy": (dict,),
        "playerEnergy": (dict,),
        "territoryId": (str,),
    }[field]
    frame = browser_observation()
    if value == "absent":
        del frame["data"][field]
    else:
        frame["data"][field] = value
    with server.connect() as client:
        reply = ask(client, frame)
    if value != "absent" and type(value) in fits:
        assert reply["type"] in ("spawn_decision", "no_action")
    else:
        assert reply["data"]["errorCode"] == "VALIDATION_ERROR"
        assert field in reply["data"]["error"]


@pytest.mark.parametrize("field", ["miningWorkers", "workersPresent", "protectors", "parasitesStart", "parasitesEnd"])
def test_a_bad_entity_never_spoils_an_observation(server: RunningServer, field: str) -> None:
    """An entity that is no object or has no chunk is counted and placed nowhere; the observation is decided."""
    with server.connect() as client:
        for entity in BAD_ENTITIES:
            frame = browser_observation()
            frame["data"][field] = [entity, {"chunkId": 3, "type": "combat"}, entity]
            assert ask(client, frame)["type"] in ("spawn_decision", "no_action"), entity


@pytest.mark.parametrize(
    "change",
    [
        {"queenEnergy": {"current": 10**400}},
        {"queenEnergy": {"current": "much"}},
        {"playerEnergy": {"start": None, "end": []}},
        {"playerMinerals": "none"},
        {"hiveChunk": "210"},
        {"hiveChunk": -5},
        {"workersPresent": None},
        {"timestamp": 10**300},
        {"unknown": {"deep": [1, 2, 3]}},
        {"territoryId": ""},
        {"territoryId": "\u0000\u2603"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_odd_values_in_optional_places_are_decided(server: RunningServer, change: dict[str, Any]) -> None:
    """What is odd and not required degrades to its default; the reply is one decision in strict JSON."""
    frame = browser_observation()
    frame["data"].update(change)
    with server.connect() as client:
        reply = ask(client, frame)
        assert reply["type"] in ("spawn_decision", "no_action")
        assert reply["data"]["territoryId"] == frame["data"]["territoryId"]


@pytest.mark.parametrize("number", [1e39, -1e39, 1e308, 10**40, -(10**300)], ids=lambda number: f"{number:.0e}")
def test_numbers_beyond_float32_leave_nothing_that_is_not_finite(server: RunningServer, number: Any) -> None:
    """In any field, in two observations in a row: decided, rewarded and recorded, with no error counted."""
    before = server.engine.get_stats()
    with server.connect() as client:
        for _ in range(3):
            frame = browser_observation(territory="beyond")
            frame["data"].update(
                timestamp=number,
                hiveChunk=number,
                queenEnergy={"current": number, "max": number},
                playerEnergy={"start": number, "end": -number},
                playerMinerals={"start": -number, "end": number},
                miningWorkers=[{"chunkId": number}, {"chunkId": 47}],
            )
            assert ask(client, frame)["type"] in ("spawn_decision", "no_action")
    after = server.engine.get_stats()
    assert after["decided"] == before["decided"] + 3
    for count in ("errors", "rejected", "lost"):
        assert after["lane"][count] == before["lane"][count], count


def test_errors_carry_everything_that_clients_read(server: RunningServer) -> None:
    """An error has the request's id, the connection's id, code, text, status, retryable and the supported types."""
    with server.connect("/ws/game_client_3") as client:
        receive(client)
        reply = ask(client, {"type": "observation_data", "messageId": "m9"})
    assert set(reply) == {"type", "timestamp", "messageId", "clientId", "data"}
    assert (reply["type"], reply["messageId"], reply["clientId"]) == ("error", "m9", "game_client_3")
    assert set(reply["data"]) == {"error", "errorCode", "status", "retryable", "supportedMessageTypes"}
    assert reply["data"]["errorCode"] == "MISSING_DATA"
    assert set(reply["data"]["supportedMessageTypes"]) == SUPPORTED


def test_names_from_outside_cannot_grow_memory(server: RunningServer) -> None:
    """A territory id of more than 128 characters is refused, and a connection's keys are bounded."""
    with server.connect() as client:
        reply = ask(client, browser_observation(territory="t" * 129))
        assert reply["data"]["errorCode"] == "VALIDATION_ERROR"
        assert "territoryId" in reply["data"]["error"]
        before = lane(server, "pending")
        for number in range(400):
            ask(client, browser_observation(territory=f"flood_{number}"))
        assert 0 < lane(server, "pending") - before <= 256


def test_a_policy_that_fails_is_reported_as_such(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the network itself cannot decide, the answer is NN_NOT_AVAILABLE; other requests go on."""

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no network")

    with server.connect() as client:
        with monkeypatch.context() as patch:
            patch.setattr(server.engine.policy, "act_many", fail)
            reply = ask(client, browser_observation(messageId="m"))
        assert (reply["messageId"], reply["data"]["errorCode"]) == ("m", "NN_NOT_AVAILABLE")
        assert ask(client, browser_observation())["type"] == "spawn_decision"


def test_a_decision_that_took_too_long_is_an_inference_timeout(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision that comes later than the client waits is not sent: the reply is INFERENCE_TIMEOUT, retryable."""
    monkeypatch.setattr("tandem.queen.protocol.INFERENCE_TIMEOUT", -1.0)
    with server.connect() as client:
        before = lane(server, "pending")
        reply = ask(client, browser_observation())
        assert reply["data"]["errorCode"] == "INFERENCE_TIMEOUT"
        assert reply["data"]["retryable"] is True
        assert lane(server, "pending") <= before


def test_a_part_that_is_not_there_is_reported_as_such(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """GATE_NOT_AVAILABLE, TRAINER_NOT_AVAILABLE and RESET_ERROR name the part that failed."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("gone")

    monkeypatch.setattr(server.engine._hooks, "gate", None)
    monkeypatch.setattr("tandem.queen.protocol.training_stats", fail)
    monkeypatch.setattr(server.engine, "reset", fail)
    with server.connect() as client:
        for frame, code in (
            ({"type": "gate_stats_request"}, "GATE_NOT_AVAILABLE"),
            ({"type": "training_status_request"}, "TRAINER_NOT_AVAILABLE"),
            ({"type": "reset_nn", "data": {"confirm": True}}, "RESET_ERROR"),
        ):
            assert ask(client, frame)["data"]["errorCode"] == code
