"""Durations of decisions, counted by buckets whose bounds grow by the square root of 2. Standard library only."""

from __future__ import annotations

import math
from bisect import bisect_left

from . import layout

BOUNDS_NS = [math.isqrt(16_000**2 << bucket) for bucket in range(layout.LATENCY_BUCKETS - 1)]
"""Upper bounds of all buckets but the last, whole nanoseconds: 16 us * 2**(i/2) rounded down."""


def bucket(nanoseconds: int) -> int:
    """Index of a duration's bucket."""
    return bisect_left(BOUNDS_NS, nanoseconds)


def percentile(counts: list[int], share: float) -> float:
    """Seconds that `share` of the decisions counted in duration buckets took at most, interpolated in the bucket.

    The last bucket is open: what lies in it counts as its lower bound. Raises ValueError if nothing was counted.
    """
    total = sum(counts)
    if not total:
        raise ValueError("nothing was counted")
    wanted, passed = share * total, 0
    for place, count in enumerate(counts):
        if count and passed + count >= wanted:
            upper = _upper(place)
            lower = upper / 2**0.5 if place else 0.0
            if place == len(counts) - 1:
                return lower
            return lower + (upper - lower) * (wanted - passed) / count
        passed += count
    raise AssertionError("unreachable: the counts add up to their total")


def _upper(place: int) -> float:
    """Upper bound of a bucket in seconds."""
    return 16e-6 * 2 ** (place / 2)


BOUNDS = tuple(_upper(place) for place in range(layout.LATENCY_BUCKETS - 1))
"""Upper bounds in seconds of all buckets but the last, which is open."""
