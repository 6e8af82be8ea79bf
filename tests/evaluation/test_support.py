"""What a log can say at all: answers where it can, and a reason where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from open_bandit import Campaign
from tandem.evaluation.estimators import importance_weights
from tandem.evaluation.support import overlap_of, support_of, why_not


@pytest.mark.parametrize(("name", "is_answered"), [("all", True), ("men", True), ("women", False)])
def test_the_open_bandit_logs_answer_where_enough_rows_count(name: str, is_answered: bool) -> None:
    """Of the campaign `women` two rows of 10,000 count, and nothing is told; `all` and `men` answer."""
    log = Campaign.load(name)
    weights = importance_weights(log.chosen, log.propensities)
    support = support_of(weights, log.propensities, overlap_of(log.actions, log.uniform))
    reason = why_not(support, log.rewards)
    assert (reason == "") == is_answered, reason
    if not is_answered:
        assert "only 2.08 of 10,000 rows count" in reason


def table(logged: list[float], target: list[float], count: int = 2000, seed: int = 1) -> tuple[np.ndarray, ...]:
    """Weights, propensities, rewards, actions and the target's probabilities of a log of one context."""
    generator = np.random.default_rng(seed)
    actions = generator.choice(len(logged), size=count, p=logged)
    policy = np.tile(target, (count, 1))
    propensities = np.array(logged)[actions]
    rewards = (generator.random(count) < 0.3).astype(float)
    weights = importance_weights(policy[np.arange(count), actions], propensities)
    return weights, propensities, rewards, actions, policy


@pytest.mark.parametrize(
    ("logged", "target", "reason"),
    [
        ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5], ""),
        ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], "never explored"),
        ([0.5, 0.5, 0.0], [0.2, 0.2, 0.6], "60% of what it would do are actions that the log never took"),
        ([0.998, 0.001, 0.001], [0.0, 0.5, 0.5], "rows count"),
    ],
)
def test_a_log_without_support_gives_a_reason(logged: list[float], target: list[float], reason: str) -> None:
    """A deterministic log, actions never taken, too few rows: each is named; a good log has no reason."""
    weights, propensities, rewards, actions, policy = table(logged, target)
    found = why_not(support_of(weights, propensities, overlap_of(actions, policy)), rewards)
    assert (reason in found) if reason else (found == "")


def test_what_was_never_tried_in_its_place_shows_in_the_weights() -> None:
    """Each action occurs somewhere, but not where the policy would take it: the weights say so."""
    generator = np.random.default_rng(3)
    context = generator.integers(2, size=2000)
    explored = generator.random(2000) < 0.5
    actions = np.where(context == 0, 0, np.where(explored, 1, 0))
    propensities = np.where(context == 0, 1.0, 0.5)
    policy = np.tile([0.0, 1.0], (2000, 1))
    weights = importance_weights(policy[np.arange(2000), actions], propensities)
    support = support_of(weights, propensities, overlap_of(actions, policy))
    assert support.overlap == 1.0
    assert "was never tried where it would do it" in why_not(support, generator.random(2000))


def test_wrong_propensities_show_in_the_weights() -> None:
    """Propensities of a third of the true ones make the weights average 3."""
    weights, propensities, rewards, actions, policy = table([0.5, 0.3, 0.2], [0.2, 0.3, 0.5])
    support = support_of(3.0 * weights, propensities / 3.0, overlap_of(actions, policy))
    assert "the propensities must be wrong" in why_not(support, rewards)


def test_rewards_that_never_differ_tell_nothing() -> None:
    """A log without a single click has no interval of width 0, but a reason."""
    weights, propensities, rewards = table([0.5, 0.3, 0.2], [0.2, 0.3, 0.5])[:3]
    assert "every reward in the log is 0" in why_not(support_of(weights, propensities), 0.0 * rewards)


def test_an_empty_log_has_a_reason() -> None:
    """No decision with a reward at all."""
    nothing = np.empty(0)
    assert "no decision with a reward" in why_not(support_of(nothing, nothing), nothing)
