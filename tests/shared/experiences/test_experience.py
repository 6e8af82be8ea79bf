"""Experience: the object form of a record, and its rewards."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.experiences.experience import Experience


def experience(**changes: object) -> Experience:
    values = {
        "observation": np.arange(28, dtype=np.float32),
        "spawn_chunk": 7,
        "spawn_type": 1,
        "nn_confidence": 0.25,
        "gate_decision": "SEND",
        "expected_reward": 0.5,
    }
    return Experience(**{**values, **changes})  # type: ignore[arg-type]


def test_a_pending_experience_is_not_complete() -> None:
    """A SEND without its reward waits; with it, or as a WAIT, nothing more will be learned."""
    assert not experience().is_completed
    assert experience(actual_reward=0.0).is_completed
    assert experience(gate_decision="WAIT").is_completed


def test_effective_reward_blends_expected_and_actual() -> None:
    """0.3 * expected + 0.7 * actual; expected alone while none is known."""
    assert experience().effective_reward == 0.5
    assert experience(actual_reward=-1.0).effective_reward == pytest.approx(0.3 * 0.5 - 0.7)


def test_the_weights_come_from_the_configuration() -> None:
    """Other weights, other blend."""
    config = dataclasses.replace(
        ContinuousTrainingConfig(), simulation_reward_weight=0.5, actual_reward_weight=0.5, wait_reward_multiplier=0.25
    )
    assert experience(actual_reward=1.0).training_reward(config) == pytest.approx(0.75)
    assert experience(gate_decision="WAIT").training_reward(config) == pytest.approx(0.125)


def test_an_unaffordable_wait_has_a_finite_reward() -> None:
    """-inf counts as -1, discounted."""
    assert experience(gate_decision="WAIT", expected_reward=-math.inf).effective_reward == pytest.approx(-0.5)


def test_another_gate_decision_is_refused() -> None:
    """SEND and WAIT are all there is."""
    with pytest.raises(ValueError, match="allowed: SEND, WAIT"):
        experience(gate_decision="MAYBE")


def test_without_a_gate_the_actual_reward_counts_alone() -> None:
    """As the trainer reckons."""
    config = ContinuousTrainingConfig()
    assert experience(actual_reward=-1.0).training_reward(config, gated=False) == -1.0
