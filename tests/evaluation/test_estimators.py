"""The estimators: the values of a public implementation on public data, and what they make of unusable arrays."""

from __future__ import annotations

import numpy as np
import pytest
from open_bandit import CAMPAIGNS, POSITIONS, Campaign
from tandem.evaluation import estimators
from tandem.evaluation.errors import EvaluationError
from tandem.evaluation.fitted_rewards import cell_means
from tandem.evaluation.support import effective_rows

EXACT = 1e-9


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_the_open_bandit_data_give_the_published_values(name: str) -> None:
    """IPS, SNIPS, DM and DR, the effective rows and the largest weight are those of obp 0.4.1 to 1e-9."""
    log = Campaign.load(name)
    items = int(log.expected["items"])
    weights = estimators.importance_weights(log.chosen, log.propensities)
    predictions = cell_means(log.rewards, log.actions, log.positions, (POSITIONS, items))[log.positions]
    expected = estimators.expected_under(log.uniform, predictions)
    predicted = estimators.predicted_for(log.actions, predictions)
    found = {
        "ipw": estimators.inverse_propensity(log.rewards, weights),
        "snipw": estimators.self_normalised(log.rewards, weights),
        "dm": estimators.direct_method(log.uniform, predictions),
        "dr": estimators.doubly_robust(log.rewards, weights, expected, predicted),
    }
    for estimator, estimate in found.items():
        assert estimate.value == pytest.approx(log.expected[estimator], abs=EXACT), estimator
        assert estimator == "dm" or estimate.low <= estimate.value <= estimate.high
    assert effective_rows(weights) == pytest.approx(log.expected["effective_sample_size"], abs=EXACT)
    assert weights.max() == pytest.approx(log.expected["max_weight"], abs=EXACT)


@pytest.mark.parametrize("name", ["all", "men"])
@pytest.mark.parametrize("method", ["bernstein", "bootstrap"])
def test_the_intervals_hold_what_the_uniform_policy_really_earned(name: str, method: str) -> None:
    """The same campaign was logged under the uniform policy, too: its mean reward lies inside every interval."""
    log = Campaign.load(name)
    truth = log.expected["truth_mean_reward_of_the_random_log"]
    weights = estimators.importance_weights(log.chosen, log.propensities)
    for estimator in (estimators.inverse_propensity, estimators.self_normalised):
        estimate = estimator(log.rewards, weights, (0.0, 1.0), method)
        assert estimate.low <= truth <= estimate.high


def test_a_policy_compared_with_itself_earns_the_same() -> None:
    """Weights of 1 give the logged mean under every estimator, and no difference from it."""
    rewards = np.random.default_rng(1).random(500)
    ones = np.ones(500)
    for estimator in (estimators.inverse_propensity, estimators.self_normalised):
        assert estimator(rewards, ones).value == pytest.approx(rewards.mean())
    terms = estimators.dr_terms(rewards, ones, ones / 2, ones / 2, (0.0, 1.0))
    assert terms.ratio == pytest.approx(rewards.mean())
    apart = estimators.difference(terms, terms, 0.0)
    assert (apart.value, apart.low <= 0.0 <= apart.high) == (0.0, True)
    wider = estimators.difference(terms, terms, 50.0)
    assert wider.low < apart.low
    assert wider.high > apart.high


def test_a_good_model_makes_the_doubly_robust_estimate_surer_and_a_wrong_one_does_not_bend_it() -> None:
    """With the true expectations the interval is narrower than without; with absurd ones the estimate stays right."""
    generator = np.random.default_rng(2)
    count, choices = 20_000, 4
    truth = np.array([0.1, 0.3, 0.5, 0.9])
    actions = generator.integers(choices, size=count)
    rewards = (generator.random(count) < truth[actions]).astype(float)
    policy = np.tile([0.1, 0.1, 0.1, 0.7], (count, 1))
    weights = estimators.importance_weights(policy[np.arange(count), actions], np.full(count, 0.25))
    plain = estimators.inverse_propensity(rewards, weights)

    def robust(predictions: np.ndarray) -> estimators.Estimate:
        expected = estimators.expected_under(policy, predictions)
        return estimators.doubly_robust(rewards, weights, expected, estimators.predicted_for(actions, predictions))

    good, absurd = robust(truth), robust(1.0 - truth)
    assert good.high - good.low < 0.9 * (plain.high - plain.low)
    for estimate in (plain, good, absurd):
        assert estimate.low <= policy[0] @ truth <= estimate.high
        assert estimate.value == pytest.approx(policy[0] @ truth, abs=0.03)


@pytest.mark.parametrize(
    ("target", "propensities", "what"),
    [
        ([0.5, 0.5], [0.5], "one length"),
        ([0.5, 1.5], [0.5, 0.5], "0..1"),
        ([0.5, 0.5], [0.5, 0.0], "row 1"),
        ([0.5, 0.5], [float("nan"), 0.5], "row 0"),
    ],
)
def test_arrays_that_make_no_sense_are_refused(target: list[float], propensities: list[float], what: str) -> None:
    """The message names the row or the rule."""
    with pytest.raises(EvaluationError, match=what):
        estimators.importance_weights(np.array(target), np.array(propensities))
