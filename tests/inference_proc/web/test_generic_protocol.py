"""The protocol of applications that bring none of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from raw_client import TEXT, frame, read_frame, websocket
from server_kit import ask, assert_silent
from tandem.inference_proc.web.connections import Connection
from tandem.inference_proc.web.generic_protocol import GenericHandler
from tandem.shared.application import ActionHead, Application


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


DECIDE = '{"type":"decide","messageId":"m","key":%s,"observation":[0.1,0.2,0.3,%s]}'
REWARD = '{"type":"reward","messageId":"m","key":"k","value":%s}'
HOSTILE = {
    DECIDE % ('"k"', "1e39"): "d is too large",
    DECIDE % ('"k"', "-1e308"): "d is too large",
    DECIDE % ('"k"', "1" + "0" * 40): "d is too large",
    DECIDE % ('"k"', "1" + "0" * 400): "d is too large",
    DECIDE % ('"k"', "1" + "0" * 5000): "observation[3]: a number of 5001 digits",
    DECIDE % ('"k"', "1e400"): "observation[3]: the number 1e400",
    DECIDE % ('"k"', "NaN"): "observation[3]: NaN",
    DECIDE % ('"k"', "-Infinity"): "observation[3]: -Infinity",
    DECIDE % ('"k"', "true"): "d must be a number, not bool",
    DECIDE % ('"k"', "null"): "d must be a number, not NoneType",
    DECIDE % ('"k"', '"0.4"'): "d must be a number, not str",
    DECIDE % ('"k"', "[0.4]"): "d must be a number, not list",
    DECIDE % ('"k"', "0,0"): "must be an array of 4 numbers, not an array of 5",
    DECIDE % ('"k"', "[" * 90000 + "]" * 90000): "nested too deeply",
    DECIDE % ("7", "0"): "$.key",
    DECIDE % ("null", "0"): "$.key",
    DECIDE % ('"a\\u0000b"', "0"): "key: holds a NUL",
    DECIDE % ('"\\ud800"', "0"): "key: holds half of a surrogate pair",
    DECIDE % ('"' + "k" * 257 + '"', "0"): "key: is longer than 256",
    REWARD % "1e39": "value: 1e+39 is out of range",
    REWARD % "-1e39": "value: -1e+39 is out of range",
    REWARD % ("9" * 400): "value: a number of 400 digits",
    REWARD % "1e400": "value: the number 1e400",
    REWARD % "NaN": "value: NaN",
    REWARD % "true": "$.value",
    REWARD % '"0.5"': "$.value",
    REWARD % "[0.5]": "$.value",
    "\ufeff" + REWARD % "0.5": "byte order mark",
    '{"type":"reward","data":{"key":"k","value":1e39}}': "value: 1e+39 is out of range",
    '{"type":"reward","data":{"key":"k","value":true}}': "$.value",
    '{"type":"reward","data":{"key":"k","value":%s}}' % ("9" * 400): "$.value",
    '{"type":"ping","timestamp":1e999}': "timestamp: the number 1e999",
    '{"type":"ping","messageId":[1]}': "$.messageId",
}


def test_every_hostile_value_gets_one_error_that_names_it(toy_server: Any) -> None:
    """In a text frame and in a binary one; nothing is decided or rewarded, and what waits goes on waiting."""
    with toy_server.connect() as client:
        ask(client, {"type": "decide", "key": "k", "observation": [0, 0, 0, 0]})
        before = toy_server.engine.get_stats()
        for text, named in HOSTILE.items():
            for hostile in (text, text.encode()):
                reply = ask(client, hostile)
                assert reply["type"] == "error", text[:200]
                assert named in reply["data"]["error"], (text[:200], reply["data"]["error"])
                assert len(reply["data"]["error"]) < 400
                if '"m"' in text and "[[[[" not in text and "\ufeff" not in text:
                    assert reply["messageId"] == "m"
        assert_silent(client)
        after = toy_server.engine.get_stats()
        for count in ("decided", "completed", "pending_count", "reward_sum"):
            assert after.get(count) == before.get(count), count
        assert ask(client, {"type": "reward", "key": "k", "value": 0.5})["data"]["matched"]


def test_a_bad_request_spoils_no_other_of_its_batch(toy_server: Any) -> None:
    """Requests that arrive in one turn are decided together, and each hostile one among them fails alone."""
    hostile = [text for text in HOSTILE if '"decide"' in text]
    good = '{"type":"decide","key":"good-%d","observation":[0.1,0.2,0.3,0.4]}'
    with websocket(toy_server.port) as first, websocket(toy_server.port) as second:
        for number, text in enumerate(hostile):
            first.sendall(frame(TEXT, text.encode()))
            second.sendall(frame(TEXT, (good % number).encode()))
        found = [json.loads(read_frame(first)[1])["type"] for _ in hostile]
        others = [json.loads(read_frame(second)[1])["type"] for _ in hostile]
    assert found == ["error"] * len(hostile)
    assert others == ["decision"] * len(hostile)
    assert toy_server.engine.get_stats()["decided"] == len(hostile)


def test_an_observation_that_overflows_the_model_fails_alone(
    toy_server: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If the pass over a batch fails, each of its requests is decided on its own."""
    batcher = toy_server.service.handler._batcher
    decide_many = batcher._decide_many

    def fragile(requests: Any) -> Any:
        if any(np.abs(observation).max() > 1e30 for _, observation, _ in requests):
            raise FloatingPointError("the logits are not numbers")
        return decide_many(requests)

    monkeypatch.setattr(batcher, "_decide_many", fragile)
    handler = toy_server.service.handler

    async def ask_all() -> list[dict[str, Any]]:
        handler._batcher.callers = 3

        class Client:
            id = "c"

        frames = [f'{{"type":"decide","key":"k{n}","observation":[{x},0,0,0]}}' for n, x in enumerate((1, 3e38, 2))]
        answers = await asyncio.gather(*(handler.handle(Client(), text) for text in frames))
        return [json.loads(answer) for answer in answers]

    found = asyncio.run(ask_all())
    handler._batcher.callers = 0
    assert [reply["type"] for reply in found] == ["decision", "error", "decision"]
    assert found[1]["data"]["errorCode"] == "NN_NOT_AVAILABLE"


def test_without_labels_there_is_no_such_field(toy_server: Any) -> None:
    """The toy's heads have no labels. (docs/protocol.md shows a decision with some, and its test asks for it.)"""
    with toy_server.connect() as client:
        assert "labels" not in ask(client, {"type": "decide", "key": "k", "observation": [1, 2, 3, 4]})["data"]


class Always:
    """Decides the same for everybody; no engine, and no shared memory."""

    key, action, probability, head_probabilities = "k", (1,), 0.5, (0.5,)
    send, reason, expected_reward, version, model_version = True, "always", 0.0, 7, 7

    def decide_many(self, requests: Any) -> Any:
        return [self for _ in requests]

    def reward(self, key: str, value: float) -> bool:
        return False

    def forget(self, key: str) -> None: ...


def test_whatever_decides_can_be_served() -> None:
    """The handler asks for a decider's four members, not for an engine."""
    application = Application("toy", ("a", "b"), (ActionHead("place", 2, ("here", "there")),), lambda: None)  # type: ignore[arg-type, return-value]
    handler = GenericHandler(Always(), application)

    async def ask_handler() -> Any:
        return await handler.handle(Connection("c", True), '{"type":"decide","key":"k","observation":[1,2]}')

    data = json.loads(asyncio.run(ask_handler()))["data"]
    assert (data["action"], data["labels"], data["modelVersion"]) == ([1], ["there"], 7)
