"""Trials of a policy on a share of the decisions: decided as soon as it can be told, however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tandem.evaluation.errors import EvaluationError
from tandem.evaluation.sequential import PROMOTE, UNDECIDED, WITHDRAW, Trial


def played(first: float, second: float, seed: int, most: int = 60_000, share: float = 0.1, step: int = 500) -> Trial:
    """A trial whose policy earns `first` against `second`, looked at every `step` decisions until it is decided."""
    generator = np.random.default_rng(seed)
    trial = Trial(share)
    while trial.decisions < most and trial.decision == UNDECIDED:
        mine = generator.random(step) < share
        trial.add(mine, (generator.random(step) < np.where(mine, first, second)).astype(float))
    return trial


def test_equal_policies_stay_undecided() -> None:
    """Of 60 trials of a policy against itself, looked at 120 times each, at most 3 (5 %) are decided."""
    ends = [played(0.3, 0.3, seed) for seed in range(60)]
    assert sum(trial.decision != UNDECIDED for trial in ends) <= 3
    assert all((trial.decision == UNDECIDED) == (trial.interval[0] <= 0.0 <= trial.interval[1]) for trial in ends)


def test_a_worse_policy_is_withdrawn_and_a_better_one_promoted() -> None:
    """A tenth more or less than 0.3 is found within 150,000 decisions, of which a tenth are the trial's."""
    decided = [played(0.27, 0.3, seed, 150_000) for seed in range(10)]
    assert [trial.decision for trial in decided] == [WITHDRAW] * 10
    decided = [played(0.33, 0.3, seed, 150_000) for seed in range(10)]
    assert [trial.decision for trial in decided] == [PROMOTE] * 10
    assert all(trial.interval[0] <= 0.03 <= trial.interval[1] for trial in decided)


def test_the_interval_holds_at_every_look() -> None:
    """In at least 57 of 60 trials the difference was inside at each of 30 looks."""
    held = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        trial, always = Trial(0.3, (-1.0, 3.0)), True
        for _ in range(30):
            mine = generator.random(100) < 0.3
            trial.add(mine, np.where(mine, 1.4, 1.0) + generator.uniform(-1.5, 1.5, 100))
            low, high = trial.interval
            always &= low <= 0.4 <= high
        held += always
    assert held >= 57
    assert trial.estimate == pytest.approx(0.4, abs=0.2)


def test_one_at_a_time_is_as_many_at_once() -> None:
    """The sums do not depend on how the decisions were handed in."""
    generator = np.random.default_rng(3)
    mine, rewards = generator.random(300) < 0.2, generator.random(300)
    whole, single = Trial(0.2), Trial(0.2)
    whole.add(mine, rewards)
    for index in range(300):
        single.add(bool(mine[index]), float(rewards[index]))
    assert single.interval == pytest.approx(whole.interval)
    assert (single.decisions, single.estimate) == (300, pytest.approx(whole.estimate))


def test_a_margin_lets_a_policy_pass_that_is_as_good() -> None:
    """With a margin of 0.1 an equal policy is promoted; what was decided stays."""
    generator = np.random.default_rng(4)
    trial = Trial(0.5, margin=0.1)
    mine = generator.random(20_000) < 0.5
    assert trial.add(mine, (generator.random(20_000) < 0.3).astype(float)) == PROMOTE
    assert trial.add(mine, np.where(mine, 0.0, 1.0)) == PROMOTE


def test_nothing_is_known_before_the_first_decision() -> None:
    """The interval is everything that can be."""
    trial = Trial(0.1, (-2.0, 1.0))
    assert (trial.interval, trial.decision, math.isnan(trial.estimate)) == ((-3.0, 3.0), UNDECIDED, True)
    assert trial.add(np.empty(0, bool), np.empty(0)) == UNDECIDED


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"share": 0.0}, "share: 0.0"),
        ({"share": 0.1, "level": 1.0}, "level: 1.0"),
        ({"share": 0.1, "limits": (1.0, 0.0)}, "limits"),
        ({"share": 0.1, "margin": -1.0}, "margin: -1.0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float], what: str) -> None:
    """Each is named with what would be right."""
    with pytest.raises(EvaluationError, match=what):
        Trial(**settings)  # type: ignore[arg-type]


def test_bad_decisions_are_refused_and_change_nothing() -> None:
    """Lengths that differ, and rewards that are not numbers or outside the limits."""
    trial = Trial(0.1)
    for mine, rewards in (([True], [0.5, 0.5]), ([True], [1.5]), ([False], [math.nan])):
        with pytest.raises(EvaluationError):
            trial.add(np.array(mine), np.array(rewards))
    assert trial.decisions == 0
