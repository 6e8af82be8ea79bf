"""The protocol of applications that bring none of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from server_kit import ask, assert_silent


@pytest.fixture
def toy_server(start_server: Callable[..., Any], toy_application: str) -> Any:
    """A server of the toy application: four numbers in, five places and two kinds out."""
    return start_server(application=toy_application)


def test_a_decision_and_its_reward(toy_server: Any) -> None:
    """decide answers with an action, its probabilities and the version; reward completes it once."""
    with toy_server.connect() as client:
        reply = ask(client, {"type": "decide", "key": "k", "observation": [0.1, 0.2, 0.3, 0.4], "messageId": "m"})
        data = reply["data"]
        assert (reply["type"], reply["messageId"]) == ("decision", "m")
        assert data["key"] == "k"
        assert 0 <= data["action"][0] < 5
        assert 0 <= data["action"][1] < 2
        assert data["send"] is True
        assert data["probability"] == pytest.approx(data["headProbabilities"][0] * data["headProbabilities"][1])
        assert data["modelVersion"] == 0
        first = ask(client, {"type": "reward", "key": "k", "value": 0.5})
        second = ask(client, {"type": "reward", "data": {"key": "k", "value": 1}})
    assert (first["type"], first["data"]) == ("reward_response", {"key": "k", "matched": True})
    assert second["data"]["matched"] is False
    assert toy_server.engine.get_stats()["completed"] == 1


def test_a_reward_may_come_over_another_connection(toy_server: Any) -> None:
    """Keys belong to the instance: who decided and who rewards need not be the same client."""
    with toy_server.connect() as first, toy_server.connect() as second:
        ask(first, {"type": "decide", "data": {"key": "shared", "observation": [1, 2, 3, 4]}})
        assert ask(second, {"type": "reward", "key": "shared", "value": -1.0})["data"]["matched"] is True


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "decide"},
        {"type": "decide", "key": 7, "observation": [1, 2, 3, 4]},
        {"type": "decide", "key": "k"},
        {"type": "decide", "key": "k" * 300, "observation": [1, 2, 3, 4]},
        {"type": "decide", "key": "k", "observation": [1, 2]},
        {"type": "decide", "key": "k", "observation": "abcd"},
        {"type": "decide", "key": "k", "observation": {"a": 1}},
        {"type": "decide", "key": "k", "observation": [1, 2, 3, None]},
        {"type": "decide", "key": "k", "observation": [[1, 2], [3, 4]]},
        {"type": "decide", "key": "k", "observation": [1, 2, 3, 1e39]},
        {"type": "decide", "data": []},
        {"type": "reward", "key": "k"},
        {"type": "reward", "key": "k", "value": "much"},
        {"type": "observation_data"},
        "no json",
    ],
    ids=str,
)
def test_a_bad_request_gets_one_error(toy_server: Any, frame: Any) -> None:
    """Missing, mistyped and misshapen values are one error in the common envelope; the next request is answered."""
    with toy_server.connect() as client:
        reply = ask(client, frame)
        assert reply["type"] == "error"
        assert reply["data"]["errorCode"] in ("VALIDATION_ERROR", "DESERIALIZATION_ERROR", "MISSING_DATA")
        assert set(reply["data"]["supportedMessageTypes"]) == {"decide", "reward", "ping"}
        assert_silent(client)


def test_a_generic_server_greets_nobody(toy_server: Any) -> None:
    """A named client of an application without a protocol gets answers only."""
    with toy_server.connect("/ws/name") as client:
        assert_silent(client)
