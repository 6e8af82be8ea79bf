"""Log lines of decisions."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from tandem.shared.logs import JsonFormatter

NAME = "tandem.inference_proc.decision_log"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The lines about decisions, as JSON."""
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name == NAME]


def test_one_in_so_many_is_logged(engine_of: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With `logging.decisions_every: 4` every fourth decision has a line, with its version, key, action and outcome."""
    engine = engine_of(logging={"decisions_every": 4})
    with caplog.at_level(logging.INFO):
        decisions = [engine.decide(f"key {number}", [0.1, 0.2, 0.3, 0.4]) for number in range(9)]
    written = lines(caplog)
    assert [line["key"] for line in written] == ["key 3", "key 7"]
    assert [line["version"] for line in written] == [decisions[3].version, decisions[7].version]
    assert written[0]["action"] == list(decisions[3].action)
    assert written[0]["outcome"] == "SEND"


def test_each_is_logged_at_debug_and_none_otherwise(
    engine_of: Any, rewarding_application: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At level debug each decision has a line, in strict JSON; at info none unless it was asked for."""
    engine = engine_of(application=rewarding_application)
    with caplog.at_level(logging.INFO):
        engine.decide("a", [0.5, 0.5])
    assert not lines(caplog)
    with caplog.at_level(logging.DEBUG):
        engine.decide("b", [0.5, 0.25])
        engine.decide("c" * 1000, [0.5, -0.5])
    first, second = lines(caplog)
    assert (first["outcome"], first["reason"], first["expected_reward"]) == ("WAIT", "unaffordable", None)
    assert len(second["key"]) == 64
