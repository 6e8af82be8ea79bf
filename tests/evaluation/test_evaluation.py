"""Evaluations of made-up logs: the truth is covered, the better policy is found, and what cannot be told is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from _logged_worlds import TablePolicy, TableWorld, gated, greedy
from open_bandit import Campaign
from tandem.evaluation.errors import EvaluationError
from tandem.evaluation.evaluation import BETTER, SAME, UNKNOWN, WORSE, evaluate
from tandem.evaluation.log.decisions import LoggedDecisions
from tandem.evaluation.target_policy import FixedPolicy

LIMITS = (0.0, 1.0)


@pytest.mark.parametrize(("method", "runs"), [("bernstein", 100), ("bootstrap", 50)])
def test_the_truth_is_covered(method: str, runs: int) -> None:
    """Of 100 logs of 2,000 decisions at least 90 intervals of IPS, SNIPS, DR and the difference hold the truth."""
    world = TableWorld.drawn(1)
    policy = greedy(world, 0.6)
    covered: dict[str, int] = {}
    for seed in range(runs):
        found = evaluate(world.log(2000, seed), policy, limits=LIMITS, method=method)
        assert found.reason == ""
        assert found.apart is not None
        for estimate in (*found.policy.estimates, found.apart):
            truth = world.truth(policy) - (world.logged() if estimate is found.apart else 0.0)
            covered[estimate.estimator] = covered.get(estimate.estimator, 0) + (estimate.low <= truth <= estimate.high)
    assert {name: count for name, count in covered.items() if count < 0.9 * runs} == {"dm": 0}


@pytest.mark.parametrize(("name", "outcomes"), [("all", {SAME}), ("men", {SAME}), ("women", {UNKNOWN})])
def test_the_open_bandit_logs(name: str, outcomes: set[str]) -> None:
    """Two campaigns are answered, with what the uniform policy really earned inside; of the third nothing is told."""
    log = Campaign.load(name)
    count, items = len(log.rewards), int(log.expected["items"])
    decisions = LoggedDecisions(
        observations=np.eye(3, dtype=np.float32)[log.positions],
        actions=log.actions[:, np.newaxis],
        propensities=log.propensities,
        rewards=log.rewards,
        sent=np.ones(count, bool),
        timestamps=np.arange(float(count)),
        sizes=(items,),
    )
    found = evaluate(decisions, FixedPolicy("uniform", [[1.0 / items] * items]), limits=LIMITS)
    assert found.outcome in outcomes
    if found.outcome != UNKNOWN:
        truth = log.expected["truth_mean_reward_of_the_random_log"]
        assert all(e.low <= truth <= e.high for e in found.policy.estimates if e.estimator != "dm")
    assert found.policy.estimates[0].value == pytest.approx(log.expected["ipw"], abs=1e-9)


def test_better_worse_and_neither_are_told_apart() -> None:
    """The greedy policy of the truth is better than what was logged, its opposite worse, the logging one neither."""
    world = TableWorld.drawn(2)
    log = world.log(20_000, 1)
    opposite = TablePolicy(np.roll(greedy(world).table, 1, axis=1), "opposite")
    assert evaluate(log, greedy(world), limits=LIMITS).outcome == BETTER
    assert evaluate(log, TablePolicy(world.logging), limits=LIMITS).outcome == SAME
    assert evaluate(log, opposite, greedy(world), LIMITS).outcome == WORSE
    found = evaluate(log, greedy(world), opposite, LIMITS)
    truth = world.truth(greedy(world)) - world.truth(opposite)
    assert found.outcome == BETTER
    assert found.apart is not None
    assert found.apart.low <= truth <= found.apart.high


def test_the_order_of_the_best_estimators() -> None:
    """The doubly robust interval is the narrowest: the model knows what the contexts are worth."""
    world = TableWorld.drawn(3, rate=0.5)
    found = {e.estimator: e for e in evaluate(world.log(20_000, 1), greedy(world), limits=LIMITS).policy.estimates}
    assert list(found) == ["ips", "snips", "dm", "dr"]
    assert found["dr"].high - found["dr"].low < found["ips"].high - found["ips"].low


def test_what_a_gate_held_back_is_never_an_outcome() -> None:
    """Estimates are of decisions let through; the share of WAIT that the policy would have met is estimated beside."""
    world = TableWorld.drawn(4)
    policy = greedy(world, 0.7)
    log = gated(world.log(30_000, 1), blocked=2)
    share = policy.table[:, 2].mean()
    sent = (policy.table * world.chances)[:, [0, 1, 3, 4]].sum() / policy.table[:, [0, 1, 3, 4]].sum()
    found = evaluate(log, policy, limits=LIMITS)
    assert found.waits == pytest.approx(world.logging[:, 2].mean(), abs=0.02)
    assert found.policy.waits == pytest.approx(share, abs=0.02)
    assert [estimate.estimator for estimate in found.policy.estimates] == ["snips"]
    assert found.policy.estimates[0].low <= sent <= found.policy.estimates[0].high
    assert found.policy.support.mean_weight == pytest.approx(1.0, abs=0.05)
    logged = log.rewards[log.sent].mean()
    assert found.against.estimates[0].value == pytest.approx(logged)
    assert found.apart is not None
    assert found.apart.low <= sent - logged <= found.apart.high
    expecting = replace(log, rewards=np.where(log.sent, log.rewards, 1.0))
    assert evaluate(expecting, policy, limits=LIMITS).to_dict() | {"unrewarded": 0} == found.to_dict()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda log: replace(log, propensities=np.ones(len(log))), "never explored"),
        (lambda log: replace(log, propensities=np.full(len(log), np.nan)), "no propensity"),
        (lambda log: replace(log, rewards=np.zeros(len(log))), "every reward in the log is 0"),
        (lambda log: replace(log, rewards=np.full(len(log), np.nan)), "no decision with a reward"),
        (lambda log: log.take(np.arange(len(log)) < 30), "only 30 decisions have a reward"),
        (lambda log: log.take(np.zeros(len(log), bool)), "no decision with a reward"),
        (lambda log: log.take(log.actions[:, 0] == 0), "actions that the log never took"),
    ],
)
def test_a_log_that_cannot_tell_says_why(change: object, reason: str) -> None:
    """The outcome is a reason and no number: determinism, missing propensities, rewards, rows, or support."""
    world = TableWorld.drawn(5)
    found = evaluate(change(world.log(3000, 1)), TablePolicy(world.logging), limits=LIMITS)  # type: ignore[operator]
    assert (found.outcome, found.apart) == (UNKNOWN, None)
    assert reason in found.reason
    assert all(np.isnan(estimate.low) for estimate in found.policy.estimates)


def test_what_was_never_tried_may_earn_anything() -> None:
    """A policy that does in 4 % of its decisions what the log never did: the interval is wider by that."""
    world = TableWorld.drawn(6)
    log = world.log(20_000, 1)
    rare = log.take(log.actions[:, 0] != 4)
    rare = replace(rare, propensities=rare.propensities / (1.0 - world.logging[rare.observations.argmax(axis=1), 4]))
    table = np.tile([0.24, 0.24, 0.24, 0.24, 0.04], (8, 1))
    found = evaluate(rare, TablePolicy(table), limits=LIMITS)
    assert found.outcome != UNKNOWN
    assert found.policy.support.unsupported == pytest.approx(0.04, abs=1e-6)
    estimate = found.policy.estimates[-1]
    assert estimate.high - estimate.value >= 0.04
    assert estimate.low <= world.truth(TablePolicy(table)) <= estimate.high


def test_rewards_that_never_came_are_counted() -> None:
    """Decisions let through without a reward leave the estimate and are named."""
    world = TableWorld.drawn(7)
    log = world.log(5000, 1)
    missing = np.arange(5000) % 10 == 0
    found = evaluate(replace(log, rewards=np.where(missing, np.nan, log.rewards)), greedy(world, 0.5), limits=LIMITS)
    assert (found.unrewarded, len(found.rewarded), found.outcome != UNKNOWN) == (500, 4500, True)


def test_a_policy_of_other_heads_is_refused() -> None:
    """It is named with what the log has; so is a method that there is not."""
    world = TableWorld.drawn(8)
    log = world.log(500, 1)
    with pytest.raises(EvaluationError, match=r"heads of \[4\] choices, the log's have \[5\]"):
        evaluate(log, TablePolicy(np.full((8, 4), 0.25)))
    with pytest.raises(EvaluationError, match="there is no interval 'normal'"):
        evaluate(log, greedy(world), method="normal")
