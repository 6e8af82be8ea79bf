"""Numbers that are absurd beside those seen so far: what is trained on is bounded by them.

One reward of 1e20 among rewards of 1 says nothing but that something broke where it was computed. The range that is
learned is far wider than rewards of any sensible application: rare large ones must stay what they are.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..experiences.records import SEND

_KEPT = 512
_ENOUGH = 8
"""So many numbers, before anything is concluded from them."""
_RENEWAL = 256
"""The range is computed anew when so many numbers have come in."""
_TICKETS = 4096
REWARDS_BEYOND, OBSERVATIONS_BEYOND = 100.0, 10_000.0
"""How many times the typical distance from the median is absurd."""


class Tickets:
    """The newest decisions, by ticket, that something was said about: at most 4096."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def add(self, tickets: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Remember them; which were not known: bool[n]."""
        new = np.zeros(len(tickets), np.bool_)
        for index, ticket in enumerate(tickets.tolist()):
            new[index] = ticket not in self._known
            self._known[ticket] = None
        while len(self._known) > _TICKETS:
            self._known.popitem(last=False)
        return new

    def among(self, tickets: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of them are known: bool[n]."""
        return np.fromiter((ticket in self._known for ticket in tickets.tolist()), np.bool_, len(tickets))


class LearnedRange:
    """The range of sensible numbers: the median of the last 512, give or take `beyond` times what is typical.

    Typical is the largest of 1, the median's magnitude, and the median distance of those that differ from it: of many
    zeros and a rare 50 it is 50. A number outside counts once however often it is drawn, so it takes a quarter of
    the numbers to move the range, and when everything has changed its scale the range follows. `low` and `high` are its
    ends; `outliers` counts the decisions that lay outside.
    """

    def __init__(self, beyond: float) -> None:
        self._beyond = beyond
        self._numbers = np.zeros(_KEPT)
        self._count = 0
        self._fresh = 0
        self._met, self._counted = Tickets(), Tickets()
        self.outliers = 0
        self._narrow()

    def find_outliers(self, numbers: NDArray[np.float64], tickets: NDArray[np.uint64]) -> NDArray[np.bool_] | None:
        """Take in float64[n] of decisions uint64[n]; which lie outside: bool[n], None if none does."""
        if not len(numbers):
            return None
        if self.low <= numbers.min() and numbers.max() <= self.high:
            self._admit(numbers)
            if self._fresh >= _RENEWAL:
                self._narrow()
            return None
        outside = self._outside(numbers)
        new = self._met.add(tickets[outside])
        self._admit(np.concatenate([numbers[~outside], numbers[outside][new]]))
        self._narrow()
        outside = self._outside(numbers)
        if not outside.any():
            return None
        self.outliers += int(np.count_nonzero(self._counted.add(tickets[outside])))
        return outside

    def _outside(self, numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
        outside: NDArray[np.bool_] = (numbers < self.low) | (numbers > self.high)
        return outside

    def _admit(self, numbers: NDArray[np.float64]) -> None:
        numbers = numbers[-_KEPT:]
        at, size = self._count % _KEPT, len(numbers)
        if at + size > _KEPT:
            self._numbers[: at + size - _KEPT] = numbers[_KEPT - at :]
        self._numbers[at : at + size] = numbers[: _KEPT - at]
        self._count += size
        self._fresh += size

    def _narrow(self) -> None:
        self._fresh = 0
        known = self._numbers[: min(self._count, _KEPT)]
        middle = _median(known) if len(known) >= _ENOUGH else 0.0
        distances = np.abs(known - middle)
        distances = distances[distances > 0]
        typical = _median(distances) if len(distances) >= _ENOUGH else 0.0
        reach = self._beyond * max(1.0, abs(middle), typical)
        self.low, self.high = middle - reach, middle + reach


class RewardBounds:
    """Clips rewards to the range that the application declares, or to one that is learned from them."""

    def __init__(self, declared: tuple[float, float] | None = None) -> None:
        self._declared = declared
        self._actual = LearnedRange(REWARDS_BEYOND)
        self._expected = LearnedRange(REWARDS_BEYOND)
        self._beyond_declared = Tickets()
        self._outliers = 0

    @property
    def outliers(self) -> int:
        """Decisions whose actual or expected reward was clipped."""
        return self._outliers + self._actual.outliers + self._expected.outliers

    def clip(self, rows: NDArray[Any], gated: bool) -> None:
        """Clip the rewards of records (structured [n]) in place: the actual ones, and with a gate the expected ones."""
        sent = rows["decision"] == SEND
        actual = self.actual_rewards(rows["actual_reward"][sent], rows["ticket"][sent])
        if actual is not None:
            rows["actual_reward"][sent] = actual
        if gated:
            expected = rows["expected_reward"].astype(np.float64)
            if self._expected.find_outliers(expected, rows["ticket"]) is not None:
                rows["expected_reward"] = np.clip(expected, self._expected.low, self._expected.high)

    def actual_rewards(self, rewards: NDArray[Any], tickets: NDArray[np.uint64]) -> NDArray[np.float64] | None:
        """The clipped actual rewards [n] of decisions uint64[n]: float64[n]; None if there was nothing to clip."""
        actual = rewards.astype(np.float64)
        if self._find_outliers(actual, tickets) is None:
            return None
        low, high = self._declared or (self._actual.low, self._actual.high)
        return np.clip(actual, low, high)

    def _find_outliers(self, actual: NDArray[np.float64], tickets: NDArray[np.uint64]) -> NDArray[np.bool_] | None:
        if self._declared is None:
            return self._actual.find_outliers(actual, tickets)
        outside: NDArray[np.bool_] = (actual < self._declared[0]) | (actual > self._declared[1])
        if not outside.any():
            return None
        self._outliers += int(np.count_nonzero(self._beyond_declared.add(tickets[outside])))
        return outside


def _median(numbers: NDArray[np.float64]) -> float:
    middle = len(numbers) // 2
    return float(np.partition(numbers, middle)[middle])
