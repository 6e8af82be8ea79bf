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
