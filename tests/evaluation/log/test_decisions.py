"""Records become decisions: in order, with what is missing marked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tandem.evaluation.errors import EvaluationError
from tandem.evaluation.log.decisions import LoggedDecisions
from tandem.shared.application import ActionHead, GaussianHead
from tandem.shared.experiences.records import RecordLayout

HEADS = (ActionHead("place", 5), ActionHead("kind", 2))


def records(count: int = 4) -> Any:
    rows = np.zeros(count, RecordLayout(3, 2, 0, choices=7).record)
    rows["timestamp"] = np.arange(count)[::-1]
    rows["action"] = [[index % 5, index % 2] for index in range(count)]
    rows["probability"] = 0.25
    rows["actual_reward"] = np.arange(count)
    rows["decision"] = 1
    rows["observation"][:, 1] = np.arange(count)
    return rows


def test_decisions_stand_in_the_order_of_time() -> None:
    """All columns are sorted alike, and the combined action counts with the last head running fastest."""
    log = LoggedDecisions.of(records(), HEADS)
    assert log.timestamps.tolist() == [0, 1, 2, 3]
    assert log.rewards.tolist() == [3, 2, 1, 0]
    assert log.observations[:, 1].tolist() == [3, 2, 1, 0]
    assert log.joint.tolist() == [3 * 2 + 1, 2 * 2, 1 * 2 + 1, 0]
    assert (log.choices, len(log), len(log.take(log.rewards > 1))) == (10, 4, 2)


def test_missing_rewards_and_propensities_are_marked() -> None:
    """A WAIT has no reward, even with a number there; a propensity that cannot be is none."""
    rows = records(6)
    rows["decision"][0] = 0
    rows["actual_reward"][1] = np.nan
    rows["probability"][2:5] = [0.0, np.nan, 1.5]
    log = LoggedDecisions.of(rows[::-1], HEADS)
    assert log.rewarded.tolist() == [True, True, True, True, False, False]
    assert np.isnan(log.propensities).tolist() == [False, True, True, True, False, False]


def test_an_impossible_action_is_refused() -> None:
    """The message names the record and the heads."""
    rows = records()
    rows["action"][0] = [5, 0]
    with pytest.raises(EvaluationError, match=r"record 3 has the action \[5, 0\]; the heads have \[5, 2\]"):
        LoggedDecisions.of(rows, HEADS)


def test_what_was_allowed_is_read() -> None:
    """Bits become masks of all heads' choices; where everything was allowed there is none; rows keep theirs."""
    rows = records()
    rows["allowed"] = RecordLayout(3, 2, 0, choices=7).everything_allowed
    assert LoggedDecisions.of(rows, HEADS).allowed is None
    rows["allowed"][0] = np.packbits([1, 1, 0, 0, 0, 1, 0], bitorder="little")
    log = LoggedDecisions.of(rows, HEADS)
    assert log.allowed is not None
    assert log.allowed[3].tolist() == [True, True, False, False, False, True, False]
    kept = log.take(log.timestamps >= 2).allowed
    assert kept is not None
    assert kept.sum(axis=1).tolist() == [7, 3]


def test_other_heads_are_refused() -> None:
    """A number or candidates have no probabilities of fixed choices."""
    with pytest.raises(EvaluationError, match="a number or among candidates"):
        LoggedDecisions.of(records(), (GaussianHead("price", 0.0, 1.0),))
