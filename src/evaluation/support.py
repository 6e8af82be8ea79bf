"""What a log can say about a policy at all: how many rows count, how much one of them weighs, what was never tried."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .intervals import Floats, Terms, interval

LEAST_EFFECTIVE = 100.0
"""Effective rows below which nothing is said."""
MOST_UNSUPPORTED = 0.05
"""The largest share of the target policy's decisions that may lie where the log has none."""
MOST_EXCESS = 0.05
"""How far above 1 weights may certainly be on average: more comes of wrong propensities."""
_CERTAIN = 1.0 - 1e-6
"""A propensity from here on is that of an action that was not drawn but taken."""


@dataclass(frozen=True)
class Support:
    """The log's support for a policy.

    `effective` rows: as many equally weighted ones would be as uncertain. `overlap`: share of the target policy's
    probability on actions that the log took at least once. `mean_weight` is 1 where everything is supported and the
    propensities are right, and lies in `mean_weight_low` to `mean_weight_high` with 95 % confidence. `certain`: share
    of rows whose action was the only possible one.
    """

    rows: int
    effective: float
    largest_weight: float
    overlap: float
    mean_weight: float
    mean_weight_low: float
    mean_weight_high: float
    certain: float

    @property
    def unsupported(self) -> float:
        """The share of the target policy's decisions that lies where the log has none, as far as that shows."""
        return max(1.0 - self.overlap, 1.0 - self.mean_weight_high, 0.0)

    def to_dict(self) -> dict[str, float | None]:
        """Plain data for JSON."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


def effective_rows(weights: Floats) -> float:
    """sum(weights)^2 / sum(weights^2) (Kong, "A note on importance sampling using standardized weights", 1992)."""
    squares = float((weights * weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def overlap_of(actions: NDArray[np.int64], probabilities: Floats) -> float:
    """Share of the target policy's probability, float64[n, K], on actions that occur among int64[n]."""
    taken = np.zeros(probabilities.shape[1], bool)
    taken[actions] = True
    return min(float(probabilities[:, taken].sum() / probabilities.sum()), 1.0)


def support_of(weights: Floats, propensities: Floats, overlap: float = 1.0) -> Support:
    """The support of weights float64[n], with what `overlap_of` found."""
    count = len(weights)
    mean = low = high = math.nan
    if count >= 2:
        heaviest = max(float(weights.max()), 1.0)
        terms = Terms(weights, np.ones(count), ((0.0, 1.0), (heaviest, 1.0)), (0.0, heaviest))
        mean, (low, high) = terms.ratio, interval(terms)
    return Support(
        rows=count,
        effective=effective_rows(weights),
        largest_weight=float(weights.max()) if count else 0.0,
        overlap=overlap,
        mean_weight=mean,
        mean_weight_low=low,
        mean_weight_high=high,
        certain=float((propensities >= _CERTAIN).mean()) if count else 0.0,
    )


def why_not(support: Support, rewards: Floats) -> str:
    """Why nothing can be told of a policy from this log, in words; empty if something can."""
    if support.rows == 0:
        return "the log has no decision with a reward"
    if support.rows < LEAST_EFFECTIVE:
        return f"only {support.rows} decisions have a reward, {LEAST_EFFECTIVE:g} are needed"
    if support.certain == 1.0:
        return "the log is of a policy that never explored: each action was taken with probability 1"
    if support.overlap < 1.0 - MOST_UNSUPPORTED:
        return f"{1.0 - support.overlap:.0%} of what it would do are actions that the log never took"
    if support.mean_weight_high < 1.0 - MOST_UNSUPPORTED:
        return (
            f"at least {1.0 - support.mean_weight_high:.0%} of what it would do was never tried where it would do it"
            f" (the weights average {support.mean_weight:.3g}, and 1 is right)"
        )
    if support.effective < LEAST_EFFECTIVE:
        return (
            f"only {support.effective:.3g} of {support.rows:,} rows count, {LEAST_EFFECTIVE:g} are needed: the log"
            " seldom did what it would do"
        )
    if support.mean_weight_low > 1.0 + MOST_EXCESS:
        return f"the weights average {support.mean_weight:.3g} where 1 is right: the propensities must be wrong"
    if float(rewards.min()) == float(rewards.max()):
        return f"every reward in the log is {rewards[0]:g}"
    return ""
