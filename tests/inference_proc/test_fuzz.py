"""Thousands of hostile frames: every one is answered, nothing is out of step, nothing is kept."""

from __future__ import annotations

import gc
import json
import random
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_kit import ask, browser_observation, receive, simulator_observation

SILENT = ("spawn_result", "heartbeat_response")
TYPES = [
    "observation_data",
    "ping",
    "health_check",
    "training_status_request",
    "background_training_stats_request",
    "gate_stats_request",
    "reset_nn",
    "reconnect",
    "queen_death",
    "queen_success",
    "game_outcome",
    "difficulty_status_request",
    "learning_progress_request",
    "error",
    "",
]
FRAMES = 20_000
PER_EXAMPLE = 50

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**40), max_value=10**40)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 1e308, -0.0, "\u0000", "\ud7ff", "x" * 2000])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def replaced(value: Any, source: random.Random, by: Any) -> Any:
    """`value` with one place in it, chosen at random, replaced by `by`, or left out."""
    if isinstance(value, dict) and value and source.random() < 0.85:
        key = source.choice(sorted(value))
        if source.random() < 0.1:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: replaced(value[key], source, by)}
    if isinstance(value, list) and value and source.random() < 0.85:
        place = source.randrange(len(value))
        return [*value[:place], replaced(value[place], source, by), *value[place + 1 :]]
    return by


def damaged(text: str, source: random.Random) -> str:
    """`text` cut, doubled or with a few characters changed."""
    way = source.randrange(3)
    if way == 0:
        return text[: source.randrange(len(text) + 1)]
    if way == 1:
        return text + text[source.randrange(len(text) + 1) :]
    characters = list(text)
    for _ in range(source.randrange(1, 5)):
        if characters:
            characters[source.randrange(len(characters))] = source.choice('{}[]",:0eE+-.tfn\\ \u0000\u2603')
    return "".join(characters)


def make_frame(source: random.Random, value: Any) -> str:
    """A hostile frame that is not one of the requests without a reply."""
    kind = source.randrange(5)
    if kind == 0:
        frame: Any = value
    elif kind == 1:
        frame = {"type": source.choice(TYPES), "data": value, "messageId": source.choice(["m", None])}
    elif kind == 2:
        frame = replaced(browser_observation(messageId="m"), source, value)
    elif kind == 3:
        frame = replaced(simulator_observation(), source, value)
    else:
        frame = {"type": source.choice(TYPES), "timestamp": value, **(value if isinstance(value, dict) else {})}
    text = json.dumps(frame)
    if source.random() < 0.2:
        text = damaged(text, source)
    return "[]" if any(name in text for name in SILENT) else text


# The server runs on a thread of this process, and what it is built on may ask Python's random numbers while a strategy
# draws: Hypothesis would take that for the strategy's doing.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
def test_thousands_of_hostile_frames(server: Any) -> None:
    """Each of 20,000 frames gets exactly one reply, in step, and the next good request is answered right."""
    sent = 0

    @settings(
        max_examples=FRAMES // PER_EXAMPLE,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(values, min_size=5, max_size=5), st.integers(0, 2**32))
    def attack(hostile: list[Any], seed: int) -> None:
        nonlocal sent
        source = random.Random(seed)
        frames = [make_frame(source, source.choice(hostile)) for _ in range(PER_EXAMPLE)]
        for number, frame in enumerate(frames):
            client.send(frame)
            client.send(json.dumps({"type": "ping", "messageId": f"after-{number}"}))
        for number, frame in enumerate(frames):
            reply = receive(client)
            assert reply["type"] != "heartbeat"
            assert set(reply) == {"type", "timestamp", "messageId", "clientId", "data"}, frame
            assert reply["data"].get("errorCode") not in ("PROCESSING_ERROR", "NN_NOT_AVAILABLE"), frame
            following = receive(client)
            assert (following["type"], following["messageId"]) == ("pong", f"after-{number}"), frame
        sent += len(frames)

    with server.connect() as client:
        attack()
        assert sent >= FRAMES
        assert ask(client, browser_observation())["type"] in ("spawn_decision", "no_action")


def test_hostile_names_leave_no_memory_behind(server: Any) -> None:
    """Connections that use many names and vanish leave neither keys nor megabytes."""

    def flood(rounds: int) -> None:
        for number in range(rounds):
            with server.connect() as client:
                for place in range(20):
                    ask(client, browser_observation(territory=f"{number}-{place}-" + "n" * 100))

    flood(10)
    gc.collect()
    before = psutil.Process().memory_info().rss
    flood(40)
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 20 * 2**20
    assert len(server.service.connections) <= 1
