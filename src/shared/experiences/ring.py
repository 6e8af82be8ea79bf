"""Writing a ring: whose it is, its process-local lock, its counters, and how records are appended.

The owner holds a flock on the ring's file (see claim.py). Threads of the owner share it under a process-local lock
with a timeout.
"""

from __future__ import annotations

import logging
import math
import time
import weakref
from bisect import bisect_left
from typing import Any
from zlib import adler32

import numpy as np
from numpy.typing import NDArray

from ..memory import layout
from ..memory.arrays import HEADER_BYTES, SharedArray
from ..memory.claim import WORD, Claim, Refusal, disown_after_fork
from ..memory.control import Control
from ..memory.interruptible_lock import OwnedLock
from ..rate_limit import RateLimit
from .records import PREFIX_BYTES, SEND, TICKET_BITS, RecordLayout, checksum, checksums

log = logging.getLogger(__name__)

_LATENCY_BOUNDS = [math.isqrt(16_000**2 << bucket) for bucket in range(layout.LATENCY_BUCKETS - 1)]
"""Upper bounds of all duration buckets but the last, whole nanoseconds: 16 us * 2**(i/2) rounded down."""


class Damage:
    """Told that something in a lane's shared memory makes no sense and is skipped: counts it, and logs now and then."""

    def __init__(self, control: Control, index: int) -> None:
        self._words = control.words
        self._at = layout.offset(f"lane.{index}.damaged") >> 3
        self._index = index
        self._warn = RateLimit(10.0)

    def __call__(self, what: str) -> None:
        self._words[self._at] = (self._words[self._at] + 1) & WORD
        self._warn.warning(log, "lane %d: %s in shared memory makes no sense and is skipped", self._index, what)


class Hold:
    """`with lane.hold() as held`: a block of calls that belong together. Left by an exception, it is settled later."""

    __slots__ = ("_held", "_lane")

    def __init__(self, lane: RingWriter) -> None:
        self._lane = lane
        self._held = False

    def __enter__(self) -> bool:
        self._held = self._lane.acquire(3)
        return self._held

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._held:
            if kind is None:
                self._lane.unlock()
            else:
                self._lane.let_go()


class RingWriter:
    """The writing end of the ring of a claimed lane, `index`. Once released, disowned or lost it raises TandemError at
    every write.
    """

    def __init__(self, control: Control, records: RecordLayout, claim: Claim, lock_timeout: float) -> None:
        self.control = control
        self.records = records
        self.index = index = claim.index
        self.lock_timeout = lock_timeout
        self.capacity: int = control.get("capacity")
        self.lock = OwnedLock()
        self.is_half_done = False
        """True while somebody holds the lane, and after an exception in the middle of a call."""
        self._ring = SharedArray(control.instance, f"ring{index}", records.record, self.capacity)
        self._row_bytes = records.record.itemsize
        self._raw = self._ring.raw
        self._ring_words = self._ring.word_view
        base = layout.LANES_AT + index * layout.LANE_BYTES
        self.at = {name: (base + at) >> 3 for name, (at, _) in layout.LANE_FIELDS.items()}
        """Where each field of the lane lies in `control.words`."""
        self.note_damage = Damage(control, index)
        self._words = control.words
        self._head_word = self.at["head"]
        self._completed_word = self.at["completed"]
        self._tickets_word = self.at["tickets"]
        self._decided_word = self.at["decided"]
        self._decision_words = [self.at[name] for name in ("wait", "send", "version", "latency_sum_ns", "latency_0")]
        self._ticket_base = index << TICKET_BITS
        self._claim = claim
        self._claim_word, self._claim_number = claim.word, claim.number
        self._let_go = weakref.finalize(self, claim.let_go)
        self._let_go.atexit = False
        disown_after_fork(self)

    def get(self, name: str) -> Any:
        """A counter of this lane."""
        return self.control.get(f"lane.{self.index}.{name}")

    def count(self, name: str, amount: int = 1) -> None:
        """Raise a counter of this lane. The caller holds the lane (`hold`) or is the only thread."""
        at = self.at[name]
        self._words[at] = (self._words[at] + amount) & WORD

    def acquire(self, depth: int = 2) -> bool:
        """Take the process-local lock, for calls that belong together; False (counted) if it stays taken too long.

        What the last holder left half done is settled first. The frame `depth` calls up from the lock is the one that
        gives it back. Raises TandemError if the lane is not this process's.
        """
        if not self.lock.acquire(self.lock_timeout, depth):
            self.count("lock_timeouts")
            log.warning("lane %d: the lock was not free within %g s", self.index, self.lock_timeout)
            return False
        try:
            if self._words[self._claim_word] != self._claim_number:
                self._defend()
            if self.is_half_done:
                self.settle()
            self.is_half_done = True
        except BaseException:
            self.lock.release()
            raise
        return True

    def unlock(self) -> None:
        """Give back what `acquire` took: everything that was begun is done."""
        self.is_half_done = False
        self.lock.release()

    def let_go(self) -> None:
        """Give back what `acquire` took in the middle of something, which the next holder settles."""
        self.lock.release()

    def hold(self) -> Hold:
        """`acquire` and `unlock` around a block: `with lane.hold() as held`. An exception leaves it to be settled."""
        return Hold(self)

    @property
    def rows(self) -> SharedArray:
        """The ring's rows."""
        return self._ring

    def check(self) -> None:
        """Raise TandemError if the lane is not this process's any more."""
        if self._words[self._claim_word] != self._claim_number:
            self._defend()

    def _defend(self) -> None:
        """The lane was claimed again, or its number was damaged: the flock tells which."""
        if self._claim.is_held():
            self._words[self._claim_word] = self._claim_number
            self.note_damage("a claim's number")
            return
        owner = self.get("owner")
        self.refuse(
            f"lane {self.index} of instance {self.control.instance!r} was taken over by process {owner} while this one"
            " still used it; attach again (Engine.attach)"
        )
        self.check()

    def settle(self, *, same_owner: bool = True) -> None:
        """Bring everything into agreement with what was really written. Called while holding the lane."""
        raise NotImplementedError

    def next_ticket(self) -> int:
        """Name a decision: lane and count. Called while holding the lane."""
        words = self._words
        count = words[self._tickets_word] + 1
        words[self._tickets_word] = count
        words[self._decided_word] += 1
        return self._ticket_base + count

    def next_tickets(self, count: int) -> NDArray[np.uint64]:
        """Name `count` decisions at once: uint64[count]. Called while holding the lane."""
        words = self._words
        first = words[self._tickets_word] + 1
        words[self._tickets_word] = first + count - 1
        words[self._decided_word] += count
        return np.arange(self._ticket_base + first, self._ticket_base + first + count, dtype=np.uint64)

    def append(self, payload: bytes) -> int:
        """Append one completed experience and return its number (from 1). Called while holding the lane.

        The order of the stores is the protocol: invalidate, write, make valid, count.
        """
        words = self._words
        number: int = words[self._head_word] + 1
        row_bytes = self._row_bytes
        start = HEADER_BYTES + (number - 1) % self.capacity * row_bytes
        word = start >> 3
        rows = self._ring_words
        rows[word] = 0
        self._raw[start + PREFIX_BYTES : start + row_bytes] = payload
        rows[word + 1] = adler32(payload) ^ (number & 0xFFFFFFFF)
        rows[word] = number
        words[self._head_word] = number
        words[self._completed_word] += 1
        return number

    def append_many(self, rows: NDArray[Any]) -> int:
        """Append completed experiences (structured [n], sequence and checksum not yet set); the last one's number.

        The same protocol as `append` for a whole stretch at once: invalidate all rows, write them, make them valid,
        count. More than the ring holds go in one ringful after the other. Called while holding the lane.
        """
        size, words = len(rows), self._words
        if size > self.capacity:
            for start in range(0, size, self.capacity):
                self.append_many(rows[start : start + self.capacity])
            return int(words[self._head_word])
        head: int = words[self._head_word]
        numbers = np.arange(head + 1, head + size + 1, dtype=np.uint64)
        fresh = np.array(rows).view(np.uint8).reshape(size, self._row_bytes)
        sums = checksums(fresh[:, PREFIX_BYTES:], numbers.view(np.int64))
        fresh = fresh.view(np.uint64)
        fresh[:, 0] = 0
        fresh[:, 1] = sums
        target, first = self._ring.words, head % self.capacity
        until_end = min(size, self.capacity - first)
        for part, at in ((slice(0, until_end), first), (slice(until_end, size), 0)):
            stretch = slice(at, at + part.stop - part.start)
            target[stretch, 0] = 0
            target[stretch] = fresh[part]
            target[stretch, 0] = numbers[part]
        words[self._head_word] = head + size
        words[self._completed_word] += size
        return head + size

    def record(self, number: int) -> np.void:
        """A copy of the record with this number, which this lane appended lately."""
        start = HEADER_BYTES + (number - 1) % self.capacity * self._row_bytes
        # A third of what numpy's own copy of a structured row takes.
        row: np.void = np.frombuffer(bytearray(self._raw[start : start + self._row_bytes]), self.records.record)[0]
        return row

    def beat(self) -> None:
        """Say that the owner's main loop makes progress."""
        self.check()
        self.count("progress")
        self._words[self.at["progress_ns"]] = time.monotonic_ns()

    def count_decision(self, decision: int, version: int, nanoseconds: int) -> None:
        """Count one decision, its outcome at the gate and its duration."""
        words = self._words
        wait, send, newest, total, bucket = self._decision_words
        outcome = send if decision == SEND else wait
        bucket += latency_bucket(nanoseconds)
        words[outcome] = (words[outcome] + 1) & WORD
        words[newest] = version
        words[total] = (words[total] + nanoseconds) & WORD
        words[bucket] = (words[bucket] + 1) & WORD

    def release(self) -> None:
        """Give the lane back. Whoever uses it afterwards gets a TandemError. Idempotent."""
        held = self.lock.acquire(self.lock_timeout)
        try:
            if self._let_go.alive:
                self.refuse(
                    f"lane {self.index} of instance {self.control.instance!r} was given back (the engine or buffer was"
                    " closed); attach again (Engine.attach)"
                )
            self._let_go()
        finally:
            if held:
                self.lock.release()

    def disown(self) -> None:
        """Let go of a lane that was inherited by a fork: it stays the parent's, and ends with the parent."""
        self.refuse(
            f"lane {self.index} was claimed before this process forked and belongs to the parent; call Engine.attach in"
            " the child (or make a new ExperienceReplayBuffer)"
        )
        self._let_go.detach()
        self._claim.forget()

    def refuse(self, why: str) -> Refusal:
        """Write no more: every later write raises TandemError saying why. What raises is returned."""
        refusal = Refusal(why)
        self._words = self._ring_words = self._raw = refusal  # type: ignore[assignment]
        return refusal

    def is_whole(self, number: int) -> bool:
        """True if the record with this number lies in its row, complete."""
        start = HEADER_BYTES + (number - 1) % self.capacity * self._row_bytes
        sequence, stored = self._ring_words[start >> 3], self._ring_words[(start >> 3) + 1]
        return bool(
            sequence == number and stored == checksum(self._raw[start + PREFIX_BYTES : start + self._row_bytes], number)
        )


def latency_bucket(nanoseconds: int) -> int:
    """Index of the duration bucket: 16 us * 2**(i/2), see layout.LATENCY_BUCKETS."""
    return bisect_left(_LATENCY_BOUNDS, nanoseconds)
