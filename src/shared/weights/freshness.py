"""Freshness: how long rewards wait until a decision is made by weights that were trained after they came."""

from __future__ import annotations

import time
from collections import deque

from ..memory import layout
from ..memory.claim import WORD
from ..memory.control import Control
from ..memory.durations import FRESHNESS


class Freshness:
    """Counts into lane `lane`, for its owner.

    `most` rewards are remembered at most: older ones have left the ring before they decided.

    Not thread-safe: the engine holds its lock around every call.
    """

    def __init__(self, control: Control, lane: int, most: int) -> None:
        self._words = control.words
        self._first = layout.offset(f"lane.{lane}.freshness_0") >> 3
        self._total = layout.offset(f"lane.{lane}.freshness_sum_ns") >> 3
        self._waiting: deque[int] = deque(maxlen=most)

    def arrived(self) -> None:
        """A reward completed a decision of this lane just now."""
        self._waiting.append(time.monotonic_ns())

    def taken(self, drawn_ns: int) -> None:
        """The next decision is made by weights whose training drew its experiences last at `drawn_ns`.

        On the monotonic clock; 0 if it is not known: what waits goes on waiting for the next weights then.
        """
        waiting, words, now = self._waiting, self._words, time.monotonic_ns()
        while waiting and waiting[0] <= drawn_ns:
            waited = now - waiting.popleft()
            place = self._first + FRESHNESS.bucket(waited)
            words[place] = (words[place] + 1) & WORD
            words[self._total] = (words[self._total] + waited) & WORD
