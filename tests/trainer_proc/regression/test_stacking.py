"""Shares by how well each foretells: never negative, 1 in all, and a short memory only where the world has changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tandem.trainer_proc.regression.stacking import Stacking

CPU = torch.device("cpu")
SIGNAL, NOISE = 0.3, 1.0


def judged(errors: tuple[float, float, float], count: int = 4000, seed: int = 1) -> Stacking:
    """Predictions that miss the expected reward by normal errors of these sizes, each by its own; noisy rewards."""
    rng, stacking = np.random.default_rng(seed), Stacking(CPU)
    for _ in range(count // 50):
        expected = SIGNAL * rng.standard_normal(50)
        told = expected[:, None] + rng.standard_normal((50, 3)) * errors
        stacking.judge(torch.tensor(told), torch.tensor(expected + NOISE * rng.standard_normal(50)))
    return stacking


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_shares(seed: int) -> None:
    """Whatever was judged, and before anything was."""
    rng = np.random.default_rng(seed)
    for stacking in (Stacking(CPU), judged(tuple(rng.random(3)), 500, seed)):
        shares = stacking.shares()
        assert float(shares.min()) >= 0.0
        assert float(shares.sum()) == pytest.approx(1.0)
    assert Stacking(CPU).shares().tolist() == [0.5, 0.0, 0.5]


def test_who_foretells_better_has_the_larger_share() -> None:
    """The network where it is right, the linear path where it is; of two that err alike, but each by itself, both."""
    assert float(judged((0.5, 0.5, 0.0)).shares()[2]) > 0.85
    assert float(judged((0.0, 0.5, 0.5)).shares()[0]) > 0.85
    both = judged((0.3, 0.9, 0.3)).shares()
    assert 0.25 < float(both[0]) < 0.75
    assert 0.25 < float(both[2]) < 0.75


def test_a_short_memory_needs_a_clear_case() -> None:
    """A little better is luck: its share is none. Much better: the world has changed, and it has nearly all."""
    for seed in range(10):
        same = judged((0.1, 0.1, 0.5), 1000, seed)
        assert not same.has_changed
        assert float(same.shares()[1]) == 0.0
    changed = judged((0.8, 0.1, 0.8), 1000)
    assert changed.has_changed
    assert float(changed.shares()[1]) > 0.8


def test_it_notices_a_change_within_some_hundred_experiences() -> None:
    """After thousands in which the long memory was right."""
    stacking, rng = judged((0.0, 0.3, 0.3)), np.random.default_rng(2)
    assert not stacking.has_changed
    taken = 0
    while not stacking.has_changed:
        taken += 20
        expected = SIGNAL * rng.standard_normal(20)
        told = expected[:, None] + rng.standard_normal((20, 3)) * (1.5, 0.3, 1.0)
        stacking.judge(torch.tensor(told), torch.tensor(expected + NOISE * rng.standard_normal(20)))
        assert taken < 1000
