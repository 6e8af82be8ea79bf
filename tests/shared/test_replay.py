"""The replay buffer against the plan's five requirements on it, and what it says about itself."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tandem.shared.experiences.experience import Experience
from tandem.shared.replay import ExperienceReplayBuffer

MakeInstance = Callable[..., Any]


def experience(number: int = 0, **changes: Any) -> Experience:
    """An experience of the toy application: four features, five places, two kinds."""
    values: dict[str, Any] = {
        "observation": np.full(4, number, np.float32),
        "spawn_chunk": number % 5,
        "spawn_type": number % 2,
        "nn_confidence": 0.25,
        "gate_decision": "SEND",
        "expected_reward": 0.5,
        "actual_reward": 0.25,
        "timestamp": 1000.0 + number,
        "territory_id": f"t{number}",
        "model_version": number,
        "probability": 0.125,
    }
    return Experience(**{**values, **changes})


@pytest.fixture
def buffer(toy_instance: MakeInstance) -> ExperienceReplayBuffer:
    """The buffer of a fresh instance with a ring of 16."""
    return ExperienceReplayBuffer(toy_instance(trainer={"buffer_capacity": 16}), seed=1)


def test_what_is_added_comes_back_whole(buffer: ExperienceReplayBuffer) -> None:
    """Requirement 1.1: every field of an experience survives the way through shared memory."""
    assert buffer.add(experience(3))
    (found,) = buffer.sample(1)
    assert found.observation.tolist() == [3.0] * 4
    for name in (
        "spawn_chunk",
        "spawn_type",
        "nn_confidence",
        "gate_decision",
        "expected_reward",
        "actual_reward",
        "timestamp",
        "territory_id",
        "model_version",
        "probability",
        "gate_components",
    ):
        assert getattr(found, name) == getattr(experience(3), name), name


def test_the_capacity_is_fixed_and_the_oldest_goes_first(buffer: ExperienceReplayBuffer) -> None:
    """Requirement 1.2: the newest `capacity` stay."""
    for number in range(40):
        assert buffer.add(experience(number))
    assert sorted(found.model_version for found in buffer.sample(100)) == list(range(24, 40))
    stats = buffer.get_stats()
    assert (stats["size"], stats["total_added"], stats["overwritten"]) == (16, 40, 24)


def test_an_incomplete_experience_waits_for_its_reward(buffer: ExperienceReplayBuffer) -> None:
    """Requirement 1.3: pending under its territory, completed by the reward, then sampled."""
    assert buffer.add(experience(1, actual_reward=None, territory_id="here"))
    assert buffer.sample(1) == []
    assert buffer.get_stats()["pending_count"] == 1
    done = buffer.update_pending_reward("here", 0.75)
    assert done is not None
    assert (done.actual_reward, done.territory_id, done.model_version) == (0.75, "here", 1)
    assert [found.actual_reward for found in buffer.sample(5)] == [0.75]
    assert buffer.update_pending_reward("here", 0.75) is None
    assert buffer.get_stats()["pending_count"] == 0


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_refused(buffer: ExperienceReplayBuffer, reward: float) -> None:
    """The decision goes on waiting for a good one."""
    buffer.add(experience(1, actual_reward=None, territory_id="here"))
    assert buffer.update_pending_reward("here", reward) is None
    assert buffer.update_pending_reward("here", 0.5) is not None


def test_a_sample_is_random_completed_and_without_repetition(buffer: ExperienceReplayBuffer) -> None:
    """Requirement 1.4: min(n, available) different ones; none is an empty list."""
    assert buffer.sample(8) == []
    for number in range(10):
        buffer.add(experience(number))
    buffer.add(experience(99, actual_reward=None))
    drawn = [found.model_version for found in buffer.sample(8)]
    assert len(set(drawn)) == 8
    assert set(drawn) <= set(range(10))
    assert len(buffer.sample(50)) == 10


def test_adding_rewarding_and_sampling_at_once(buffer: ExperienceReplayBuffer) -> None:
    """Requirement 1.5: servers' threads add and reward while a trainer samples; nothing is lost or mixed up."""
    failures: list[object] = []
    stop = threading.Event()

    def serve(worker: int) -> None:
        for number in range(200):
            territory = f"w{worker}"
            if not buffer.add(experience(number, actual_reward=None, territory_id=territory)):
                failures.append("not added")
            if buffer.update_pending_reward(territory, 0.5) is None:
                failures.append("not rewarded")

    def train() -> None:
        while not stop.is_set():
            for found in buffer.sample(8):
                if set(found.observation.tolist()) != {float(found.model_version)}:
                    failures.append(found)

    threads = [threading.Thread(target=serve, args=(worker,)) for worker in range(3)]
    trainer = threading.Thread(target=train)
    for thread in (*threads, trainer):
        thread.start()
    for thread in threads:
        thread.join(60)
    stop.set()
    trainer.join(60)
    assert failures == []
    stats = buffer.get_stats()
    assert (stats["total_added"], stats["pending_count"], stats["decided"]) == (600, 0, 600)


def test_a_blocked_decision_is_complete_at_once(buffer: ExperienceReplayBuffer) -> None:
    """A WAIT needs no reward; what could not be paid for is stored with a finite expected reward."""
    buffer.add(experience(1, gate_decision="WAIT", actual_reward=None, expected_reward=-math.inf))
    (found,) = buffer.sample(1)
    assert (found.gate_decision, found.actual_reward, found.expected_reward) == ("WAIT", None, -1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"observation": np.zeros(3, np.float32)},
        {"observation": np.zeros(5, np.float32)},
        {"observation": np.array([1, 2, math.nan, 4], np.float32)},
        {"observation": np.array([1, 2, math.inf, 4], np.float32)},
        {"observation": np.array([math.inf, -math.inf, 1, 4], np.float32)},
        {"expected_reward": math.nan},
        {"expected_reward": math.inf},
        {"actual_reward": math.nan},
        {"actual_reward": math.inf},
        {"nn_confidence": math.nan},
        {"probability": math.nan},
        {"timestamp": math.inf},
        {"gate_components": {"a": 1.0}},
    ],
)
def test_an_invalid_experience_is_rejected_and_counted(
    buffer: ExperienceReplayBuffer, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong length or a value that is not finite: False, counted, nothing stored, nothing raised."""
    with caplog.at_level(logging.WARNING):
        assert not buffer.add(experience(1, **changes))
    stats = buffer.get_stats()
    assert (stats["rejected"], stats["size"], stats["pending_count"], stats["decided"]) == (1, 0, 0, 1)


def test_a_lock_that_is_not_free_ends_gracefully(toy_instance: MakeInstance) -> None:
    """Requirement 7.1: add False, update None, sampling needs no lock at all."""
    buffer = ExperienceReplayBuffer(toy_instance(trainer={"lock_timeout": 0.01}))
    buffer.add(experience(1))
    taken, done = threading.Event(), threading.Event()

    def hog() -> None:
        with buffer.lane.hold():
            taken.set()
            done.wait(30)

    thread = threading.Thread(target=hog)
    thread.start()
    taken.wait(30)
    assert not buffer.add(experience(2))
    assert buffer.update_pending_reward("t1", 0.5) is None
    assert len(buffer.sample(4)) == 1
    done.set()
    thread.join(30)
    assert buffer.add(experience(2))


def test_clearing_empties_both(buffer: ExperienceReplayBuffer) -> None:
    """Completed and pending go; both are accounted for."""
    for number in range(5):
        buffer.add(experience(number))
    buffer.add(experience(6, actual_reward=None))
    buffer.clear()
    stats = buffer.get_stats()
    assert (stats["size"], stats["pending_count"], stats["cleared"], stats["dropped"]) == (0, 0, 5, 1)
    assert buffer.sample(5) == []
    buffer.add(experience(7))
    assert [found.model_version for found in buffer.sample(5)] == [7]


def test_the_numbers_of_get_stats_add_up(buffer: ExperienceReplayBuffer) -> None:
    """decided = completed + pending + expired + superseded + dropped + rejected + lost; added = size + overwritten."""
    for number in range(30):
        buffer.add(experience(number))
        buffer.add(experience(number, actual_reward=None, territory_id=f"k{number % 3}"))
        if number % 4 == 0:
            buffer.update_pending_reward(f"k{number % 3}", 0.1)
        if number % 7 == 0:
            buffer.add(experience(number, expected_reward=math.nan))
        if number == 20:
            buffer.clear()
        stats = buffer.get_stats()
        assert stats["decided"] == sum(
            stats[name]
            for name in ("completed", "pending_count", "expired", "superseded", "dropped", "rejected", "lost")
        )
        assert stats["total_added"] == stats["size"] + stats["overwritten"] + stats["cleared"]
        assert stats["utilization"] == stats["size"] / stats["capacity"]
    for name in ("buffer_size", "pending_count", "completed_count", "total_added", "total_sampled", "capacity"):
        assert name in stats


def test_another_process_s_buffer_reads_without_a_lane(toy_instance: MakeInstance) -> None:
    """Reading claims nothing: both lanes stay free for writers."""
    instance = toy_instance()
    writer = ExperienceReplayBuffer(instance)
    writer.add(experience(1))
    reader = ExperienceReplayBuffer(instance.name)
    assert len(reader.sample(4)) == 1
    assert instance.control.get("lane.1.claims") == 0
    writer.close()
    writer.close()
