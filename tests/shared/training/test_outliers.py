"""Absurd numbers beside those seen so far; and what must not be taken for one."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import pytest
from tandem.shared.experiences.records import SEND, WAIT, RecordLayout
from tandem.shared.training.outliers import LearnedRange, RewardBounds, Tickets


class Stream:
    """Batches of new decisions for a range."""

    def __init__(self, beyond=100.0):
        self.range = LearnedRange(beyond)
        self.tickets = count(1)
        self.rng = np.random.default_rng(2)

    def play(self, draw, batches=40, size=32):
        """How many of them were taken for outliers; `draw(rng, size)` gives the numbers."""
        before = self.range.outliers
        for _ in range(batches):
            tickets = np.array([next(self.tickets) for _ in range(size)], dtype=np.uint64)
            self.range.find_outliers(draw(self.rng, size).astype(np.float64), tickets)
        return self.range.outliers - before


COIN = ("zeros and ones", lambda rng, n: (rng.random(n) < 0.5) * 1.0)
KINDS = [
    COIN,
    ("a rare fifty", lambda rng, n: (rng.random(n) < 0.01) * 50.0),
    ("millions", lambda rng, n: 1e6 * rng.random(n)),
    ("thousandths", lambda rng, n: 1e-3 * rng.standard_normal(n)),
    ("around a thousand", lambda rng, n: 1000 + 0.1 * rng.standard_normal(n)),
    ("nearly always a thousand", lambda rng, n: np.where(rng.random(n) < 0.05, 0.0, 1000.0)),
    ("heavy tails", lambda rng, n: rng.lognormal(3.0, 1.0, n)),
    ("always the same", lambda rng, n: np.full(n, -4.0)),
]


@pytest.mark.parametrize("draw", [draw for _, draw in KINDS], ids=[name for name, _ in KINDS])
def test_sensible_rewards_are_left_as_they_are(draw):
    """Whatever their scale and however rare the large ones: none is an outlier, from the first batch on."""
    assert Stream().play(draw) == 0


@pytest.mark.parametrize("value", [1e20, -1e20, 3e38, 1e6, math.inf])
def test_one_absurd_number_is_found_and_counted_once(value):
    """However often it is drawn, also from a buffer of eight, and it does not move the range."""
    for size in (8, 32):
        stream = Stream()
        numbers = np.array([value] + [0.0, 1.0, 1.0] * 10 + [0.0])[:size]
        tickets = np.arange(1, size + 1, dtype=np.uint64)
        for _ in range(200):
            outside = stream.range.find_outliers(numbers, tickets)
            assert outside.tolist() == [True] + [False] * (size - 1)
        assert stream.range.outliers == 1
        assert stream.range.high - stream.range.low < 300


def test_when_everything_grows_the_range_follows():
    """From ones to millions and back: within some batches nothing is an outlier any more."""
    stream = Stream()
    stream.play(COIN[1])
    stream.play(lambda rng, n: 1e6 * (1 + rng.random(n)), 30)
    assert stream.play(lambda rng, n: 1e6 * (1 + rng.random(n))) == 0
    assert stream.range.high > 1e6
    stream.play(COIN[1])
    assert stream.range.high < 1e4


def rows(actual, expected=0.5):
    """Records of SENDs with these rewards, and a WAIT."""
    made = np.zeros(len(actual) + 1, RecordLayout(features=1, heads=1, components=0).record)
    made["ticket"] = np.arange(1, len(made) + 1)
    made["decision"] = [SEND] * len(actual) + [WAIT]
    made["actual_reward"] = [*actual, math.nan]
    made["expected_reward"] = expected
    return made


def test_a_declared_range_is_kept_to():
    """What lies outside is its nearest end, and counted; what was not rewarded stays without a reward."""
    bounds = RewardBounds((-1.0, 1.0))
    batch = rows([0.5, 1e20, -3.0, 1.0])
    bounds.clip(batch, gated=False)
    assert batch["actual_reward"][:4].tolist() == [0.5, 1.0, -1.0, 1.0]
    assert math.isnan(batch["actual_reward"][4])
    assert bounds.outliers == 2


def test_a_learned_range_clips_actual_and_expected_rewards():
    """An absurd expectation of the gate is bounded too."""
    bounds = RewardBounds()
    batch = rows([0.0, 1.0] * 8 + [1e20])
    batch["expected_reward"][3] = -1e30
    bounds.clip(batch, gated=True)
    assert batch["actual_reward"][16] == pytest.approx(100, rel=0.02)
    assert batch["expected_reward"][3] == pytest.approx(-100, rel=0.02)
    assert bounds.outliers == 2


def test_only_the_newest_tickets_are_remembered():
    """The memory is bounded."""
    tickets = Tickets()
    assert tickets.add(np.array([5, 5, 6], np.uint64)).tolist() == [True, False, True]
    tickets.add(np.arange(100, 5000, dtype=np.uint64))
    assert len(tickets) == 4096
    assert tickets.among(np.array([5, 4999], np.uint64)).tolist() == [False, True]
