"""Freshness: what is counted between a reward and the first decision by weights trained after it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from channel_kit import fill
from tandem.inference_proc.engine import Engine
from tandem.shared.memory.durations import FRESHNESS
from tandem.shared.telemetry.snapshot import Snapshot
from tandem.shared.telemetry.stats import training_stats
from tandem.shared.weights.freshness import Freshness
from tandem.shared.weights.publisher import Publisher
from tandem.shared.weights.subscriber import Look


@pytest.fixture
def engine(toy_instance: Callable[..., Any]) -> Any:
    """An engine of the toy with nobody who trains."""
    attached = Engine(toy_instance())
    yield attached
    attached.close()


def counted(engine: Engine) -> int:
    return sum(Snapshot(engine.control).freshness_counts)


def test_a_reward_counts_with_the_first_decision_by_weights_trained_after_it(engine: Engine) -> None:
    """Not with weights whose experiences were drawn before it came, and once."""
    observation = [0.1, 0.2, 0.3, 0.4]
    publisher, flat = Publisher(engine._live.slots), engine.instance.build_model()
    drawn_before = time.monotonic_ns()
    for key in ("a", "b"):
        engine.decide(key, observation)
        assert engine.reward(key, 1.0)
    publisher.publish(flat.flat, 8, drawn_before)
    engine.decide("c", observation)
    assert counted(engine) == 0
    drawn_after = time.monotonic_ns()
    engine.reward("c", 1.0)
    publisher.publish(flat.flat, 16, drawn_after)
    engine.decide("d", observation)
    assert counted(engine) == 2
    publisher.publish(flat.flat, 17)
    engine.decide("d", observation)
    assert counted(engine) == 2, "weights that came from no step brought something"
    publisher.publish(flat.flat, 18, time.monotonic_ns())
    engine.decide("d", observation)
    assert counted(engine) == 3
    fresh = training_stats(engine.control)["training"]["freshness"]
    assert fresh["count"] == 3
    assert 0.0 < fresh["p50_seconds"] <= fresh["p99_seconds"]


def test_the_time_is_that_from_the_reward_to_the_decision(channel: Callable[..., Any]) -> None:
    """The bucket of the time that passed, and its sum."""
    lane = channel().claim()
    freshness = Freshness(lane.control, lane.index, 10)
    freshness.arrived()
    arrived = time.monotonic_ns()
    time.sleep(0.02)
    freshness.taken(arrived)
    waited = time.monotonic_ns() - arrived
    total = lane.get("freshness_sum_ns")
    assert 20_000_000 <= total <= waited + 1_000_000
    assert lane.get(f"freshness_{FRESHNESS.bucket(total)}") == 1


def test_no_more_rewards_are_remembered_than_the_ring_holds(channel: Callable[..., Any]) -> None:
    """While no trainer publishes, the oldest are forgotten: they have left the ring."""
    lane = channel().claim()
    freshness = Freshness(lane.control, lane.index, 3)
    for _ in range(5):
        freshness.arrived()
    freshness.taken(time.monotonic_ns())
    assert sum(lane.get(f"freshness_{bucket}") for bucket in range(24)) == 3


def test_a_slot_that_is_written_again_says_nothing(channel: Callable[..., Any]) -> None:
    """The time of another version is not taken for that of the version in use."""
    made = channel(slots=2)
    publisher, subscriber, room = made.publisher(), made.subscriber(), made.room()
    publisher.publish(fill(made.room(), 1), 1, 111)
    assert subscriber.refresh(room) is Look.TAKEN
    assert subscriber.drawn_ns() == 111
    publisher.publish(fill(made.room(), 2), 2, 222)
    assert subscriber.drawn_ns() == 111
    publisher.publish(fill(made.room(), 3), 3, 333)
    assert subscriber.drawn_ns() == 0
