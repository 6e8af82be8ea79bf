"""Durations, counted in buckets whose bounds grow by the square root of 2. Standard library only."""

from __future__ import annotations

import math
from bisect import bisect_left

from . import layout


class Scale:
    """`count` buckets: bucket i holds what took at most `first_us` * 2**(i/2) microseconds; the last one is open.

    `bounds_ns` are the upper bounds of all buckets but the last in whole nanoseconds, rounded down, `bounds` the same
    in seconds, not rounded.
    """

    def __init__(self, first_us: int, count: int) -> None:
        self.bounds_ns = [math.isqrt((first_us * 1000) ** 2 << bucket) for bucket in range(count - 1)]
        self.bounds = tuple(first_us * 1e-6 * 2 ** (place / 2) for place in range(count - 1))

    def bucket(self, nanoseconds: int) -> int:
        """Index of a duration's bucket."""
        return bisect_left(self.bounds_ns, nanoseconds)

    def percentile(self, counts: list[int], share: float) -> float:
        """Seconds that `share` of what was counted in these buckets took at most, interpolated in the bucket.

        What lies in the open bucket counts as its lower bound. Raises ValueError if nothing was counted.
        """
        total = sum(counts)
        if not total:
            raise ValueError("nothing was counted")
        wanted, passed = share * total, 0
        for place, count in enumerate(counts):
            if count and passed + count >= wanted:
                if place == len(self.bounds):
                    return self.bounds[-1]
                upper = self.bounds[place]
                lower = upper / 2**0.5 if place else 0.0
                return lower + (upper - lower) * (wanted - passed) / count
            passed += count
        raise AssertionError("unreachable: the counts add up to their total")


DECISION = Scale(16, layout.LATENCY_BUCKETS)
"""Time from an observation to its decision."""
FRESHNESS = Scale(4000, layout.FRESHNESS_BUCKETS)
"""Time from a reward to the first decision by weights that were trained after it."""
