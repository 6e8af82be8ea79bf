"""Comparing two policies while both decide, with an answer that holds however often one looks: for canaries.

A known share of the decisions, drawn at random, is made by the policy on trial, the others by the one in force. What
is known of the difference is always an interval that holds at all times at once, so that one may stop as soon as it
tells, and look after every decision.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import EvaluationError
from .intervals import LEVEL, Floats, Interval

UNDECIDED, PROMOTE, WITHDRAW = "undecided", "promote", "withdraw"

_STEPS = 24
"""How many speeds of betting are mixed: from the fastest possible one, each half as fast again."""
_HALVINGS = 50


class Trial:
    """The difference of mean rewards between the policy on trial and the other one, as decisions come in.

    Each decision was the trial's with probability `share`, whatever went before; rewards lie in `limits`. Then
    `interval` holds the true difference at every moment at once with probability `level`: the empirical Bernstein
    confidence sequence of Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
    sequences", Annals of Statistics 49, 2021, theorem 4, with a mixture of speeds in place of one; nothing in it is an
    approximation. The state is a few sums, however many decisions there were.

    `decision` is "promote" once the trial's policy earns more than the other one less `margin`, "withdraw" once it
    earns less than the other one, and stays so.
    """

    def __init__(self, share: float, limits: Interval = (0.0, 1.0), level: float = LEVEL, margin: float = 0.0) -> None:
        """Raises EvaluationError for a share or level outside 0..1, limits in the wrong order or a negative margin."""
        if not 0.0 < share < 1.0:
            raise EvaluationError(f"share: {share!r} (a number above 0 and below 1)")
        if not 0.0 < level < 1.0:
            raise EvaluationError(f"level: {level!r} (a number above 0 and below 1)")
        if not (math.isfinite(limits[0]) and math.isfinite(limits[1]) and limits[0] < limits[1]):
            raise EvaluationError(f"limits: {limits!r} (two finite numbers, the lower one first)")
        if not margin >= 0.0:
            raise EvaluationError(f"margin: {margin!r} (0 or more)")
        self.share = share
        self.limits = limits
        self.level = level
        self.margin = margin
        self.decisions = 0
        self.decision = UNDECIDED
        self._rewards = 0.0
        self._sum = 0.0
        self._squares = 0.0
        self._threshold = math.log(2.0 / (1.0 - level)) + math.log(_STEPS)
        farthest = 1.0 / min(share, 1.0 - share) + 1.0
        self._speeds = (0.5 ** np.arange(1, _STEPS + 1)) / farthest
        # How much a bet of this speed pays for each unit of spread: psi_E of the paper's table 2.
        self._costs = (-np.log1p(-farthest * self._speeds) - farthest * self._speeds) / farthest**2

    @property
    def estimate(self) -> float:
        """The difference so far, the trial's less the other's; NaN without decisions."""
        return self._sum / self.decisions * self._width if self.decisions else math.nan

    @property
    def _width(self) -> float:
        return self.limits[1] - self.limits[0]

    def add(self, on_trial: NDArray[np.bool_] | bool, rewards: Floats | float) -> str:
        """Take in decisions: by whom each was made (bool[n]), and its reward (float64[n]); returns `decision`.

        Raises EvaluationError for arrays of different lengths or a reward outside the limits; nothing is taken in then.
        """
        mine, earned = np.atleast_1d(np.asarray(on_trial, bool)), np.atleast_1d(np.asarray(rewards, np.float64))
        if mine.shape != earned.shape or mine.ndim != 1:
            raise EvaluationError(f"on_trial {mine.shape} and rewards {earned.shape} must be of one length")
        if not ((earned >= self.limits[0]) & (earned <= self.limits[1])).all():
            raise EvaluationError(f"a reward lies outside of {self.limits}; give the limits of what can be earned")
        if len(earned):
            self._take((earned - self.limits[0]) / self._width, mine)
        if self.decision == UNDECIDED and self.decisions:
            # As `interval` would tell, without looking for its ends.
            if self._is_beyond(self._sum + self.decisions * self.margin / self._width):
                self.decision = PROMOTE
            elif self._is_beyond(-self._sum):
                self.decision = WITHDRAW
        return self.decision

    def _take(self, earned: Floats, mine: NDArray[np.bool_]) -> None:
        """Add to the sums. Each row is compared with what the rows before it led to expect, and with nothing later."""
        before = self.decisions + np.arange(len(earned))
        expected = (0.5 + self._rewards + _before(earned)) / (before + 1.0)
        rows: Any = (earned - expected) * np.where(mine, 1.0 / self.share, -1.0 / (1.0 - self.share))
        foretold = np.clip((self._sum + _before(rows)) / (before + 1.0), -1.0, 1.0)
        self._squares += float(((rows - foretold) ** 2).sum())
        self._sum += float(rows.sum())
        self._rewards += float(earned.sum())
        self.decisions += len(earned)

    @property
    def interval(self) -> Interval:
        """Where the difference lies, in units of the rewards."""
        if not self.decisions:
            return -self._width, self._width
        mean = self._sum / self.decisions
        reach = self._reach() / self.decisions
        return max(mean - reach, -1.0) * self._width, min(mean + reach, 1.0) * self._width

    def _reach(self) -> float:
        """How far the sum may be from what the true difference makes it, in either direction."""
        inside, outside = 0.0, 4.0 * self.decisions / self.share + 1.0
        for _ in range(_HALVINGS):
            half = (inside + outside) / 2.0
            if self._is_beyond(half):
                outside = half
            else:
                inside = half
        return outside

    def _is_beyond(self, apart: float) -> bool:
        """True if the sum is nowhere so far above what the true difference makes it, with the confidence asked for."""
        gains = self._speeds * apart - self._costs * self._squares
        most = float(gains.max())
        return most + math.log(float(np.exp(gains - most).sum())) >= self._threshold


def _before(values: Floats) -> Floats:
    """Sums of the values before each one: float64[n]."""
    sums: Floats = np.concatenate([[0.0], values[:-1].cumsum()])
    return sums
