"""Confidence intervals: they cover what is true, and are not wider than they must be."""

from __future__ import annotations

import numpy as np
import pytest
from tandem.evaluation.errors import EvaluationError
from tandem.evaluation.intervals import METHODS, Terms, interval

ONE = ((0.0, 1.0), (1.0, 1.0))


def mean_terms(values: np.ndarray, most: float = 1.0) -> Terms:
    """The mean of values in 0..most."""
    return Terms(values, np.ones(len(values)), ((0.0, 1.0), (most, 1.0)), (0.0, most))


@pytest.mark.parametrize(("method", "least", "widest"), [("bernstein", 95, 1.7), ("bootstrap", 90, 1.2)])
def test_a_mean_is_covered(method: str, least: int, widest: float) -> None:
    """Of 100 samples of 2,000 values at least 90 (by betting 95) intervals hold the mean; how wide they are."""
    covered, widths = 0, []
    for seed in range(100):
        values = (np.random.default_rng(seed).random(2000) < 0.2).astype(float)
        low, high = interval(mean_terms(values), method)
        covered += low <= 0.2 <= high
        widths.append((high - low) / (2 * 1.96 * values.std() / np.sqrt(2000)))
    assert covered >= least
    assert 0.9 < np.mean(widths) < widest


def test_the_farthest_row_is_at_a_corner() -> None:
    """Of a mean of weighted rewards 0.2 no row can be more than 0.2 below, and one of the largest weight 4.8 above."""
    terms = Terms(np.ones(5), np.ones(5), ((0.0, 1.0), (5.0, 1.0)), (0.0, 1.0))
    assert terms.farthest(0.2, 1.0) == pytest.approx(0.2)
    assert terms.farthest(0.2, -1.0) == pytest.approx(4.8)


def test_a_weight_that_could_come_widens_the_interval_above_only() -> None:
    """That one row may weigh a thousand says nothing of how little is earned at least."""
    values = np.random.default_rng(6).random(2000)
    low, high = interval(mean_terms(values))
    lowest, highest = interval(Terms(values, np.ones(2000), ((0.0, 1.0), (1000.0, 1.0)), (0.0, 1.0)))
    assert lowest == pytest.approx(low, abs=1e-6)
    assert highest > high + 0.3


@pytest.mark.parametrize("method", METHODS)
def test_a_ratio_is_covered_wherever_the_rewards_zero_lies(method: str) -> None:
    """The interval of a weighted mean moves with the values and keeps its width."""
    generator = np.random.default_rng(5)
    weights, values = generator.exponential(size=3000), generator.random(3000)
    heaviest = float(weights.max())

    def found(shift: float) -> tuple[float, float]:
        corners = ((0.0, 0.0), (heaviest * shift, heaviest), (heaviest * (1.0 + shift), heaviest))
        return interval(Terms(weights * (values + shift), weights, corners, (shift, 1.0 + shift)), method)

    low, high = found(0.0)
    moved = found(7.0)
    assert low < 0.5 < high
    assert moved == pytest.approx((low + 7.0, high + 7.0), abs=1e-3)


def test_an_interval_of_bets_holds_although_the_policy_changed_while_it_logged() -> None:
    """Weights of a policy that sharpens over time, towards what earned, still cover the target's value."""
    covered = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        sharp = np.linspace(0.5, 0.9, 3000)
        best = generator.random(3000) < sharp
        rewards = (generator.random(3000) < np.where(best, 0.6, 0.2)).astype(float)
        weights = 0.5 / np.where(best, sharp, 1.0 - sharp)
        heaviest = float(weights.max())
        corners = ((0.0, 1.0), (heaviest, 1.0))
        low, high = interval(Terms(weights * rewards, np.ones(3000), corners, (0.0, 1.0)))
        covered += low <= 0.4 <= high
    assert covered >= 37


def test_more_confidence_is_wider() -> None:
    """The level is heeded."""
    values = np.random.default_rng(4).random(1000)
    for method in METHODS:
        low, high = interval(mean_terms(values), method, 0.8)
        wider = interval(mean_terms(values), method, 0.99)
        assert wider[0] < low < high < wider[1]


def test_an_interval_stays_inside_the_limits() -> None:
    """A mean of values in 0..1 lies there, however few values there are; without weight anything is possible."""
    low, high = interval(mean_terms(np.array([1.0, 1.0, 1.0, 0.0])))
    assert 0.0 <= low < high <= 1.0
    nothing = Terms(np.zeros(5), np.zeros(5), ((0.0, 0.0),), (-2.0, 3.0))
    assert interval(nothing) == (-2.0, 3.0)


def test_what_cannot_be_used_is_refused() -> None:
    """Unknown methods and arrays of different lengths are named."""
    values = np.ones(5)
    with pytest.raises(EvaluationError, match="there are bernstein, bootstrap"):
        interval(mean_terms(values), "normal")
    with pytest.raises(EvaluationError, match="one length"):
        interval(Terms(values, np.ones(4), ONE, (0.0, 1.0)))
    with pytest.raises(EvaluationError, match="2 at least"):
        interval(mean_terms(np.ones(1)))
