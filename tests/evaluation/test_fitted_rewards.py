"""Fitted rewards: they learn what actions earn, and never from the row that they are used for."""

from __future__ import annotations

import numpy as np
import pytest
from tandem.evaluation.fitted_rewards import FOLDS, RewardFit, cell_means, cross_fitted


def world(count: int, choices: int = 3, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, actions and rewards; action k earns more where feature k is large."""
    generator = np.random.default_rng(seed)
    features = generator.normal(5.0, 3.0, (count, choices))
    actions = generator.integers(choices, size=count)
    rewards = 0.1 * features[np.arange(count), actions] + generator.normal(0, 0.1, count)
    return features, actions, rewards


def test_each_action_has_a_line_of_its_own() -> None:
    """The prediction follows the feature that the action depends on, on rows that were not seen."""
    features, actions, rewards = world(3000)
    fit = RewardFit(features, actions, rewards, 3, (-10.0, 10.0))
    others, _, _ = world(500, seed=2)
    assert np.abs(fit.predict(others) - 0.1 * others).max() < 0.05


def test_an_action_that_was_never_taken_is_expected_to_earn_what_any_would() -> None:
    """Nothing is known of it but the rows of all actions, and what it gives stays inside the limits."""
    features, actions, rewards = world(3000)
    fit = RewardFit(features, actions, rewards, 4, (0.0, 1.0))
    found = fit.predict(features)
    assert found[:, 3].mean() == pytest.approx(rewards.mean(), abs=0.05)
    assert found.min() >= 0.0
    assert found.max() <= 1.0


def test_many_actions_have_means_of_their_own() -> None:
    """With so many actions that lines would take too much memory, each still has a mean."""
    generator = np.random.default_rng(3)
    features = generator.normal(size=(4000, 100))
    actions = generator.integers(2, size=4000) * 2500
    rewards = np.where(actions > 0, 0.8, 0.2)
    found = RewardFit(features, actions, rewards, 3000, (0.0, 1.0)).predict(features[:5])
    assert found[:, 0] == pytest.approx(0.2, abs=0.15)
    assert found[:, 2500] == pytest.approx(0.8, abs=0.15)


def test_no_row_is_predicted_from_its_own_reward() -> None:
    """A reward that changes moves the predictions of the other folds and not those of its own."""
    features, actions, rewards = world(200)
    changed = rewards.copy()
    changed[7] += 100.0
    limits = (-1000.0, 1000.0)
    before = cross_fitted(features, actions, rewards, 3, limits)
    after = cross_fitted(features, actions, changed, 3, limits)
    assert len(before) == FOLDS
    for (mine, old), (_, new) in zip(before, after, strict=True):
        assert np.array_equal(old(features), new(features)) == bool(mine[7])
    assert sum(mine.astype(int) for mine, _ in before).tolist() == [1] * 200


def test_a_cell_without_rows_is_expected_to_earn_nothing() -> None:
    """Means by hand."""
    found = cell_means(np.array([1.0, 0.0, 1.0]), np.array([0, 0, 1]), np.array([0, 0, 1]), (2, 2))
    assert found.tolist() == [[0.5, 0.0], [0.0, 1.0]]
