"""An evaluation in parts: each part covers its own truth, and says where it cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
from _logged_worlds import TablePolicy, TableWorld, greedy
from tandem.evaluation.breakdown import PARTS, WINDOWS, breakdown
from tandem.evaluation.errors import EvaluationError
from tandem.evaluation.evaluation import Evaluation, evaluate
from tandem.shared.application import ActionHead

FEATURES = tuple(f"f{index}" for index in range(8))
HEADS = (ActionHead("kind", 5, tuple("abcde")),)


@pytest.fixture(scope="module", name="world")
def world_fixture() -> TableWorld:
    return TableWorld.drawn(1)


@pytest.fixture(scope="module", name="found")
def found_fixture(world: TableWorld) -> Evaluation:
    return evaluate(world.log(40_000, 1), greedy(world, 0.6), limits=(0.0, 1.0))


def test_a_feature_tells_contexts_apart(world: TableWorld, found: Evaluation) -> None:
    """The range in which a context's feature is 1 has that context's value."""
    parts = breakdown(found, "f3", FEATURES, HEADS)
    assert 1 <= len(parts) <= PARTS
    assert sum(part.rows for part in parts) == 40_000
    others = TablePolicy(greedy(world, 0.6).table)
    log = found.rewarded
    rows = log.observations[:, 3] == 1.0
    only = evaluate(log.take(rows), others, limits=(0.0, 1.0))
    truth = (others.table * world.chances).sum(axis=1)[3]
    estimate = only.policy.estimates[1]
    assert estimate.low <= truth <= estimate.high


def test_actions_are_named_by_their_labels(world: TableWorld, found: Evaluation) -> None:
    """Each action has a part, with what it earns where the policy would take it."""
    parts = breakdown(found, "action", FEATURES, HEADS)
    assert [part.label for part in parts] == [f"kind {label}" for label in "abcde"]
    assert parts == breakdown(found, "kind", FEATURES, HEADS)
    table = greedy(world, 0.6).table
    truths = (table * world.chances).sum(axis=0) / table.sum(axis=0)
    for part, truth in zip(parts, truths, strict=True):
        assert part.estimate is not None
        assert part.estimate.low <= truth <= part.estimate.high


def test_windows_follow_the_time(found: Evaluation) -> None:
    """Ten stretches of as many decisions, in order; one with too few of them says so."""
    parts = breakdown(found, "time", FEATURES, HEADS)
    assert [part.rows for part in parts] == [4000] * WINDOWS
    assert [part.label for part in parts] == sorted(part.label for part in parts)
    few = evaluate(found.rewarded.take(np.arange(40_000) < 300), TablePolicy(np.full((8, 5), 0.2)), limits=(0.0, 1.0))
    for part in breakdown(few, "time", FEATURES, HEADS):
        assert (part.rows, part.estimate) == (30, None)
        assert "of 30 rows count" in part.reason


def test_an_unknown_name_is_refused(found: Evaluation) -> None:
    """What there is to choose from is listed."""
    with pytest.raises(EvaluationError, match=r"nothing called 'nonsense'.*action, time, kind, f0"):
        breakdown(found, "nonsense", FEATURES, HEADS)
