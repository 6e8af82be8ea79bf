"""Confidence intervals of means and of ratios of means, for terms whose distribution is skewed and has a long tail.

`bernstein` holds at every number of rows, if no weight can be larger than the largest seen, and costs width: a third
more where there are many rows, far more where there are few. `bootstrap` is narrow, and covers less than it says where
a few rows weigh most.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import EvaluationError

LEVEL = 0.95
BERNSTEIN, BOOTSTRAP = "bernstein", "bootstrap"
METHODS = {BERNSTEIN: "empirical Bernstein by betting", BOOTSTRAP: "studentised bootstrap"}
"""The methods, and what a result calls them."""

_REPEATS, _GROUPS, _SEED = 1000, 1000, 20240601
_MOST_LOST = 0.75
"""The largest share of what a bettor has that one row may cost."""
_HALVINGS = 26

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Terms:
    """What an estimate is made of: sum(numerators) / sum(denominators), float64[n] each, in the order of time.

    For a mean the denominators are 1. `corners` are pairs of a numerator and a denominator, such that every row that
    could come lies between them; `limits` are the least and the largest that the ratio itself can be.
    """

    numerators: Floats
    denominators: Floats
    corners: tuple[tuple[float, float], ...]
    limits: Interval

    @property
    def ratio(self) -> float:
        """The estimate; NaN if the denominators are all 0."""
        below = float(self.denominators.sum())
        return float(self.numerators.sum()) / below if below else math.nan

    def farthest(self, value: float, sign: float) -> float:
        """The most that a row can be below (`sign` 1) or above (-1) what `value` expects of it."""
        return max(max(-sign * (above - value * below) for above, below in self.corners), 1e-300)


def interval(terms: Terms, method: str = BERNSTEIN, level: float = LEVEL) -> Interval:
    """The interval at `level` of what `terms` estimate, inside their limits.

    Raises EvaluationError for an unknown method, and for terms of different lengths or fewer than two.
    """
    if method not in METHODS:
        raise EvaluationError(f"there is no interval {method!r} (there are {', '.join(METHODS)})")
    shapes = terms.numerators.shape, terms.denominators.shape
    if shapes[0] != shapes[1] or len(shapes[0]) != 1 or shapes[0][0] < 2:
        raise EvaluationError(f"an interval needs two arrays of one length, 2 at least; these are {shapes}")
    if not terms.denominators.any():
        return terms.limits
    low, high = (bernstein if method == BERNSTEIN else bootstrap)(terms, level)
    least, most = terms.limits
    return min(max(low, least), most), max(min(high, most), least)


def bernstein(terms: Terms, level: float = LEVEL) -> Interval:
    """The empirical Bernstein interval by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random
    variables by betting", Journal of the Royal Statistical Society B 86, 2024, sections 3 and 4).

    A value is inside unless a bet against it, whose stake at each row is decided by the rows before, would have
    multiplied what it began with by more than 2 / (1 - level). For a ratio the bet is on numerator - value *
    denominator, whose mean is 0 at the true one. It holds also for rows of a policy that changed while it logged.
    """
    threshold = math.log(2.0 / (1.0 - level))
    spread = _spread_before(terms)
    stakes = np.sqrt(2.0 * threshold / (len(spread) * spread))

    def is_refused(value: float, sign: float) -> bool:
        most = _MOST_LOST / terms.farthest(value, sign)
        apart = sign * (terms.numerators - value * terms.denominators)
        gains = np.log1p(np.maximum(np.minimum(stakes, most) * apart, -_MOST_LOST))
        return float(gains.sum()) >= threshold

    middle = min(max(terms.ratio, terms.limits[0]), terms.limits[1])
    return (
        _edge(lambda value: is_refused(value, 1.0), middle, terms.limits[0]),
        _edge(lambda value: is_refused(value, -1.0), middle, terms.limits[1]),
    )


def _spread_before(terms: Terms) -> Floats:
    """The mean square of how far the rows before each one were from what was expected of them then: float64[n]."""
    half = (terms.limits[1] - terms.limits[0]) / 2.0
    above = np.concatenate([[terms.limits[0] + half], terms.numerators[:-1]]).cumsum()
    below = np.concatenate([[1.0], terms.denominators[:-1]]).cumsum()
    apart = terms.numerators - above / below * terms.denominators
    squares = np.concatenate([[half * half], apart[:-1] ** 2]).cumsum()
    spread: Floats = np.maximum(squares / np.arange(1, len(apart) + 1), 1e-300)
    return spread


def _edge(is_refused: Callable[[float], bool], middle: float, limit: float) -> float:
    """Where the values from `middle` towards `limit` begin to be refused; the limit if none of them is."""
    if is_refused(middle) or not is_refused(limit):
        return middle if is_refused(middle) else limit
    inside, outside = middle, limit
    for _ in range(_HALVINGS):
        half = (inside + outside) / 2.0
        if is_refused(half):
            outside = half
        else:
            inside = half
    return outside


def bootstrap(terms: Terms, level: float = LEVEL) -> Interval:
    """The studentised bootstrap (bootstrap-t: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, 12.5).

    A ratio's standard error is that of the delta method. Rows are dealt at random to at most 1,000 groups, which are
    drawn in their place, each as often as a Poisson variable of mean 1 says: the sums of groups have the variance and
    the skewness of the rows. The draws are the same each time.
    """
    above, below = _grouped(terms.numerators), _grouped(terms.denominators)
    estimate, count = terms.ratio, len(above)
    error = math.sqrt(float(((above - estimate * below) ** 2).sum())) / abs(float(below.sum()))
    if not error > 0.0:
        return estimate, estimate
    sums = _draws(count) @ np.stack([above, below, above * above, above * below, below * below], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        again = sums[:, 0] / sums[:, 1]
        spread = sums[:, 2] - 2.0 * again * sums[:, 3] + again * again * sums[:, 4]
        scores = (again - estimate) / (np.sqrt(np.maximum(spread, 0.0)) / np.abs(sums[:, 1]))
    # A draw that met none of the rare terms says nothing of their spread: it counts as far away.
    scores = np.where(np.isnan(scores), np.where(again < estimate, -np.inf, np.inf), scores)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(scores, (tail, 1.0 - tail), method="inverted_cdf")
    return estimate - float(high) * error, estimate - float(low) * error


@functools.lru_cache(maxsize=2)
def _draws(count: int) -> Floats:
    """How often each of so many groups is drawn, float64[repeats, count]."""
    return np.random.default_rng(_SEED).poisson(1.0, (_REPEATS, count)).astype(np.float64)


def _grouped(values: Floats) -> Floats:
    """Sums of at most _GROUPS groups of the rows, the same groups for each array of one length."""
    count = len(values)
    if count <= _GROUPS:
        return values
    group = np.random.default_rng(_SEED).permutation(count) % _GROUPS
    sums: Floats = np.bincount(group, values, _GROUPS).astype(np.float64)
    return sums
