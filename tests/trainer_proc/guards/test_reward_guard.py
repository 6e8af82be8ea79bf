"""The reward guard: it trips on a real loss, once, and not on noise."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.trainer_proc.guards.reward_guard import RewardGuard, RewardScores, Score


def score(mean, error=0.02, count=200):
    """A score with no more to it than a mean and an error."""
    return Score(mean, error, count, mean, 1.0)


@pytest.fixture
def guard():
    """A guard with the default settings that has seen version 10 kept at a score of 0.4."""
    guard = RewardGuard(ContinuousTrainingConfig())
    guard.saved(10, score(0.4))
    return guard


def test_a_lasting_loss_trips(guard):
    """Clearly worse for a quarter of the window names the best version kept."""
    assert guard.compare(score(0.2), 30) == 0
    assert guard.compare(score(0.2), 30) == 10


def test_a_short_or_small_loss_does_not_trip(guard):
    """A dip that ends in time, or one within the error, is no reason."""
    assert guard.compare(score(0.2), 45) == 0
    assert guard.compare(score(0.39), 10) == 0
    assert guard.compare(score(0.2), 45) == 0
    for _ in range(100):
        assert guard.compare(score(0.33), 50) == 0


def test_it_can_be_switched_off(guard):
    """With live_guard false nothing is rolled back."""
    guard.config = dataclasses.replace(guard.config, live_guard=False)
    assert guard.compare(score(-1.0), 1000) == 0


def test_the_surely_better_version_is_the_one_compared_with(guard):
    """A higher mean with a large error does not take the place of a sure one."""
    guard.saved(11, score(0.45, error=0.2))
    assert guard.best_version == 10
    guard.saved(12, score(0.5))
    assert guard.best_version == 12
    guard.saved(13, None)
    assert guard.best_version == 12


def test_after_a_rollback_the_restored_version_is_measured_anew(guard):
    """If the world has become harder, one rollback is made, not one after the other."""
    guard.compare(score(0.1), 30)
    assert guard.compare(score(0.1), 30) == 10
    guard.restart(restored=10)
    guard.saved(20, score(0.9))
    assert guard.compare(None, 50) == 0
    assert guard.compare(score(0.1), 200) == 0
    assert (guard.best_version, guard.best.mean) == (10, 0.1)
    assert guard.compare(score(0.1), 1000) == 0
    assert guard.compare(score(-0.1), 51) == 10


def test_noise_hardly_ever_trips():
    """Of 20 steady worlds with the spread of real rewards none trips in 4,000 decisions."""
    rng = np.random.default_rng(5)
    trips = 0
    for _ in range(20):
        guard, window = RewardGuard(ContinuousTrainingConfig()), rng.normal(0.3, 0.4, 200)
        for number in range(95):
            window = np.concatenate((window[40:], rng.normal(0.3, 0.4, 40)))
            blocks = window.reshape(20, 10).mean(axis=1)
            now = Score(float(window.mean()), float(blocks.std(ddof=1) / math.sqrt(20)), 200, 0.3, 1.0)
            if number % 8 == 0:
                guard.saved(number + 1, now)
            trips += bool(guard.compare(now, 40))
    assert trips == 0


def test_scores_come_from_the_rings_of_every_lane(toy_instance, fill):
    """New completed decisions count once; a blocked one counts 0; those of older versions do not count."""
    instance = toy_instance()
    first, second = ExperienceReplayBuffer(instance), ExperienceReplayBuffer(instance)
    scores = RewardScores(instance.control, first.reader, window=40, since=5)
    fill(first, 30, good=9, model_version=4)
    assert scores.read_new() == 0
    fill(first, 20, good=9, model_version=5)
    fill(second, 10, good=9, model_version=6)
    assert scores.read_new() == 30
    assert scores.read_new() == 0
    assert scores.score() is None
    fill(second, 10, good=9, gate_decision="WAIT", actual_reward=None, model_version=6)
    assert scores.read_new() == 10
    result = scores.score()
    assert result.count == 40
    assert result.mean == pytest.approx(-0.75)
    assert result.reward == pytest.approx(-1.0)
    assert result.pass_rate == pytest.approx(0.75)
    scores.restart(7)
    assert scores.score() is None
    first.close()
    second.close()
