"""The counters of a lane: words of the control segment that its owner alone writes."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..memory import layout
from ..memory.claim import WORD, Refusal
from ..memory.control import Control
from ..memory.durations import DECISION
from ..rate_limit import RateLimit
from .records import SEND, TICKET_BITS

log = logging.getLogger(__name__)

_bucket = DECISION.bucket


class LaneCounters:
    """The counters of lane `index`. Once refused, they raise TandemError at every write."""

    def __init__(self, control: Control, index: int) -> None:
        self.control = control
        self.index = index
        base = layout.LANES_AT + index * layout.LANE_BYTES
        self.at = {name: (base + at) >> 3 for name, (at, _) in layout.LANE_FIELDS.items()}
        """Where each field of the lane lies in `control.words`."""
        self._words = control.words
        self._tickets_word = self.at["tickets"]
        self._decided_word = self.at["decided"]
        self._decision_words = [self.at[name] for name in ("wait", "send", "version", "latency_sum_ns", "latency_0")]
        self._ticket_base = index << TICKET_BITS
        self._warn = RateLimit(10.0)

    def get(self, name: str) -> Any:
        """A counter of this lane."""
        return self.control.get(f"lane.{self.index}.{name}")

    def count(self, name: str, amount: int = 1) -> None:
        """Raise a counter. The caller holds the lane or is the only thread that uses it."""
        at = self.at[name]
        self._words[at] = (self._words[at] + amount) & WORD

    def note_damage(self, what: str) -> None:
        """Something in the lane's shared memory makes no sense and is skipped: count it, and log it now and then."""
        self.count("damaged")
        self._warn.warning(log, "lane %d: %s in shared memory makes no sense and is skipped", self.index, what)

    def next_ticket(self) -> int:
        """Name a decision: lane and count."""
        words = self._words
        count = words[self._tickets_word] + 1
        words[self._tickets_word] = count
        words[self._decided_word] += 1
        return self._ticket_base + count

    def next_tickets(self, count: int) -> NDArray[np.uint64]:
        """Name `count` decisions at once: uint64[count]."""
        words = self._words
        first = words[self._tickets_word] + 1
        words[self._tickets_word] = first + count - 1
        words[self._decided_word] += count
        return np.arange(self._ticket_base + first, self._ticket_base + first + count, dtype=np.uint64)

    def count_decision(self, decision: int, version: int, nanoseconds: int) -> None:
        """Count one decision, its outcome at the gate and its duration."""
        words = self._words
        wait, send, newest, total, first = self._decision_words
        outcome = send if decision == SEND else wait
        place = first + _bucket(nanoseconds)
        words[outcome] = (words[outcome] + 1) & WORD
        words[newest] = version
        words[total] = (words[total] + nanoseconds) & WORD
        words[place] = (words[place] + 1) & WORD

    def beat(self) -> None:
        """Say that the owner's main loop makes progress."""
        self.count("progress")
        self._words[self.at["progress_ns"]] = time.monotonic_ns()

    def close(self, refusal: Refusal) -> None:
        """The lane is this process's no more."""
        self._words = refusal  # type: ignore[assignment]
