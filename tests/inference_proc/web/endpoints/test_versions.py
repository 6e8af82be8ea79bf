"""What each version earned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from server_kit import ask, browser_observation
from tandem.inference_proc.web.endpoints.versions import rewards_by_version
from tandem.shared.experiences.records import SEND, WAIT

ROWS = np.array(
    [(7, SEND, 0.5, 0.9), (3, WAIT, math.nan, -0.5), (7, WAIT, math.nan, 0.1), (7, SEND, -0.25, 0.8), (9, SEND, 1, 1)],
    [("version", "<i8"), ("decision", "<i4"), ("actual_reward", "<f4"), ("expected_reward", "<f4")],
)


def test_means_are_those_of_each_version() -> None:
    """A blocked decision counts 0 in the score and not in the actual reward."""
    third, seventh, ninth = rewards_by_version(ROWS, 0, 10)
    assert {name: seventh[name] for name in ("version", "decisions", "sent")} == {
        "version": 7, "decisions": 3, "sent": 2
    }  # fmt: skip
    assert np.isclose(seventh["pass_rate"], 2 / 3)
    assert np.isclose(seventh["actual_reward"], 0.125)
    assert np.isclose(seventh["score"], 0.25 / 3)
    assert np.isclose(seventh["expected_reward"], 0.6)
    assert math.isnan(third["actual_reward"])
    assert (third["score"], ninth["score"]) == (0.0, 1.0)


def test_only_the_newest_above_a_version_are_listed() -> None:
    """`since` is left out itself, `limit` keeps the newest; no records give nothing."""
    assert [entry["version"] for entry in rewards_by_version(ROWS, 3, 10)] == [7, 9]
    assert [entry["version"] for entry in rewards_by_version(ROWS, 0, 1)] == [9]
    assert rewards_by_version(ROWS, 0, 0) == rewards_by_version(ROWS, 9, 5) == rewards_by_version(ROWS[:0], 0, 5) == []


def test_the_endpoint_shows_what_was_decided(start_server: Callable[..., Any]) -> None:
    """Completed decisions of version 0 appear with their rewards, as strict JSON."""
    server = start_server(gate={"reward_threshold": -100.0})
    assert server.get("/api/training/versions").json() == {"model_version": 0, "versions": []}
    with server.connect() as client:
        rewards = [ask(client, browser_observation())["data"].get("lastReward") for _ in range(4)]
    (entry,) = server.get("/api/training/versions").json()["versions"]
    assert (entry["version"], entry["decisions"], entry["sent"]) == (0, 3, 3)
    assert np.isclose(entry["actual_reward"], np.mean(rewards[1:]))
    assert server.get("/api/training/versions?limit=-1").status_code == 400
