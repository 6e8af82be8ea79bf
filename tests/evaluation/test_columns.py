"""What is read of a target policy: in pieces or at once, for few actions and for many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from _logged_worlds import TableWorld, greedy
from tandem.evaluation import columns
from tandem.evaluation.columns import columns_of, fitted
from tandem.evaluation.log.decisions import LoggedDecisions
from tandem.evaluation.target_policy import FixedPolicy


def test_pieces_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is read 100 rows at a time has the same columns as one that is read at once."""
    world = TableWorld.drawn(1)
    log = world.log(1050, 1)
    fits = fitted(log, (0.0, 1.0))
    whole = columns_of(greedy(world), log, fits)
    monkeypatch.setattr(columns, "_PIECE", 500)
    pieces = columns_of(greedy(world), log, fits)
    for name in ("chosen", "overlap", "expected", "predicted"):
        assert np.allclose(getattr(whole, name), getattr(pieces, name)), name


def test_the_model_is_asked_about_the_policys_and_the_logged_action() -> None:
    """In a world of known chances the columns come near them."""
    world = TableWorld.drawn(2, rate=0.4)
    log = world.log(30_000, 1)
    policy = greedy(world)
    found = columns_of(policy, log, fitted(log, (0.0, 1.0)))
    context = log.observations.argmax(axis=1)
    assert np.abs(found.expected - (policy.table * world.chances).sum(axis=1)[context]).mean() < 0.05
    assert np.abs(found.predicted - world.chances[context, log.actions[:, 0]]).mean() < 0.05


def two_heads(sizes: tuple[int, int], count: int = 400) -> Any:
    generator = np.random.default_rng(3)
    actions = np.stack([generator.integers(2, size=count), generator.integers(sizes[1], size=count)], axis=1)
    return LoggedDecisions(
        np.zeros((count, 1), np.float32), actions, np.full(count, 0.5), np.ones(count), np.ones(count, bool),
        np.arange(float(count)), sizes,
    )  # fmt: skip


@pytest.mark.parametrize("second", [2, 3000])
def test_two_heads_multiply(second: int) -> None:
    """The logged action's probability is the product of its heads'; also where there are too many combinations."""
    log = two_heads((3, second))
    policy = FixedPolicy("new", [[0.5, 0.3, 0.2], [1.0 / second] * second])
    found = columns_of(policy, log)
    assert found.chosen == pytest.approx(np.array([0.5, 0.3])[log.actions[:, 0]] / second)
    assert found.overlap == pytest.approx(0.8 if second == 2 else min(0.8, len(set(log.actions[:, 1])) / second))
    assert fitted(log, (0.0, 1.0)) is None or second == 2
