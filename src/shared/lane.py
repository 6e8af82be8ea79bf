"""A writer lane: the ring and the pending table of one server process, and their counters.

The lane's owner holds a flock on the ring's file: it is free the moment the owner dies. Threads of the owner share
the lane under a process-local lock with a timeout. Nothing here ever waits for another process. If the owner dies
half way through a record, the next owner finds an invalid row (never a half one), settles the counters and
goes on with the pending decisions.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from zlib import adler32

import numpy as np
from numpy.typing import NDArray

from . import layout
from .arrays import HEADER_BYTES, SharedArray
from .control import Control
from .errors import LaneBusy
from .mail import Post
from .pending import PendingTable
from .processes import own_identity
from .records import PREFIX_BYTES, SEND, TICKET_BITS, RecordLayout, checksum, checksums
from .segments import claim_segment

log = logging.getLogger(__name__)

_LATENCY_BOUNDS = [math.isqrt(16_000**2 << bucket) for bucket in range(layout.LATENCY_BUCKETS - 1)]
"""Upper bounds of all duration buckets but the last, whole nanoseconds: 16 us * 2**(i/2) rounded down."""


class Lane:
    """The writing end of lane `index`. Claim one with `Lane.claim`."""

    def __init__(
        self, control: Control, records: RecordLayout, index: int, lock_file: int, lock_timeout: float
    ) -> None:
        self.control = control
        self.records = records
        self.index = index
        self.lock_timeout = lock_timeout
        self.capacity: int = control.get("capacity")
        self._lock = threading.Lock()
        self._lock_file = lock_file
        self._ring = SharedArray(control.instance, f"ring{index}", records.record, self.capacity)
        self._row_bytes = records.record.itemsize
        self._raw = self._ring.raw
        self._ring_words = self._ring.word_view
        base = layout.LANES_AT + index * layout.LANE_BYTES
        self._at = {name: (base + at) >> 3 for name, (at, _) in layout.LANE_FIELDS.items()}
        self._words = control.words
        self._head_word = self._at["head"]
        self._completed_word = self._at["completed"]
        self._tickets_word = self._at["tickets"]
        self._decided_word = self._at["decided"]
        self._send_word = self._at["send"]
        self._wait_word = self._at["wait"]
        self._version_word = self._at["version"]
        self._latency_sum_word = self._at["latency_sum_ns"]
        self._latency_word = self._at["latency_0"]
        self._ticket_base = index << TICKET_BITS
        self.pending = PendingTable(
            SharedArray(control.instance, f"pending{index}", records.pending, control.get("pending_capacity")), records
        )
        self._settle()
        self.post = Post(control, records, index)
        self.collect()

    @classmethod
    def claim(cls, control: Control, records: RecordLayout, lock_timeout: float = 5.0) -> Lane:
        """Take the first free lane; a dead owner's is free. Raises LaneBusy naming the holders' process ids."""
        holders = []
        for index in range(control.get("lanes")):
            lock_file = claim_segment(control.instance, f"ring{index}")
            if lock_file is None:
                holders.append(control.get(f"lane.{index}.owner"))
                continue
            try:
                pid, ticks = own_identity()
                for name, value in (("owner", pid), ("owner_ticks", ticks), ("ready", 0)):
                    control.set(f"lane.{index}.{name}", value)
                control.add(f"lane.{index}.claims")
                return cls(control, records, index, lock_file, lock_timeout)
            except BaseException:
                os.close(lock_file)
                raise
        raise LaneBusy(control.instance, holders)

    def get(self, name: str) -> Any:
        """A counter of this lane."""
        return self.control.get(f"lane.{self.index}.{name}")

    def count(self, name: str, amount: int = 1) -> None:
        """Raise a counter of this lane. The caller holds the lane (`hold`) or is the only thread."""
        self._words[self._at[name]] += amount

    def add_float(self, name: str, amount: float) -> None:
        """Raise a floating-point sum of this lane, as `count`."""
        self.control.floats[self._at[name]] += amount

    def acquire(self) -> bool:
        """Take the process-local lock, for calls that belong together; False (counted) if it stays taken too long."""
        if self._lock.acquire(timeout=self.lock_timeout):
            return True
        self.count("lock_timeouts")
        log.warning("lane %d: the lock was not free within %g s", self.index, self.lock_timeout)
        return False

    def unlock(self) -> None:
        """Give back what `acquire` took."""
        self._lock.release()

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """`acquire` and `unlock` around a block that is told whether the lock was to be had."""
        held = False
        try:
            held = self.acquire()
            yield held
        finally:
            if held:
                self.unlock()

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

    def complete(self, key: bytes, reward: float) -> np.void | None:
        """Complete the decision pending under `key`; the appended record, or None if there is none.

        The record is appended before the entry is cleared: a crash in between leaves it in both, and `_settle`
        finds it by its ticket.
        """
        payload = self.pending.payload_with_reward(key, reward)
        if payload is None:
            return None
        number = self.append(payload)
        self.pending.clear(key)
        self._sync_pending()
        self.count("reward_count")
        self.add_float("reward_sum", reward)
        return self.record(number)

    def record(self, number: int) -> np.void:
        """A copy of the record with this number, which this lane appended lately."""
        row: np.void = self._ring.array[(number - 1) % self.capacity].copy()
        return row

    def forward(self, ticket: int, reward: float) -> None:
        """Send a reward on to the lane that owns the decision `ticket`. Called while holding the lane."""
        self.post.send(ticket, reward)

    def collect(self) -> list[np.void]:
        """Complete the decisions whose rewards arrived at other lanes. Called while holding the lane."""
        completed = []
        for ticket, reward in self.post.receive():
            key = self.pending.key_of(ticket)
            row = None if key is None else self.complete(key, reward)
            if row is None:
                self.count("unmatched")
            else:
                self.count("delivered")
                completed.append(row)
        return completed

    def defer(self, ticket: int, payload: bytes, key: bytes, context: bytes) -> None:
        """Let a decision wait for its reward under `key`. An older one under the same key is superseded."""
        if self.pending.is_full:
            # The key's own older entry, if there is one, is the one to go.
            older = key in self.pending
            self.drop(key if older else self.pending.oldest(), "superseded" if older else "dropped")
        replaces = key in self.pending
        self.pending.store(ticket, payload, key, context)
        if replaces:
            self.count("superseded")
        self._sync_pending()

    def drop(self, key: bytes, reason: str = "dropped") -> bool:
        """Give up the decision pending under `key`; False if there is none."""
        if key not in self.pending:
            return False
        self.pending.clear(key)
        self._sync_pending()
        self.count(reason)
        return True

    def expire(self, older_than: float) -> list[bytes]:
        """Drop the decisions made before the wall-clock time `older_than` and return their keys."""
        expired = self.pending.older_than(older_than)
        for key in expired:
            self.drop(key, "expired")
        return expired

    def clear(self) -> None:
        """Forget every experience and every pending decision (a reset). Called while holding the lane."""
        self._words[self._at["floor"]] = self._words[self._head_word]
        for key in self.pending.keys():  # noqa: SIM118 - a list: entries go while we look
            self.drop(key)

    def beat(self) -> None:
        """Say that the owner's main loop makes progress."""
        self._words[self._at["progress"]] += 1
        self._words[self._at["progress_ns"]] = time.monotonic_ns()

    def count_decision(self, decision: int, version: int, nanoseconds: int) -> None:
        """Count one decision, its outcome at the gate and its duration."""
        words = self._words
        words[self._send_word if decision == SEND else self._wait_word] += 1
        words[self._version_word] = version
        words[self._latency_sum_word] += nanoseconds
        words[self._latency_word + latency_bucket(nanoseconds)] += 1

    def release(self) -> None:
        """Give the lane back. Idempotent."""
        if self._lock_file >= 0:
            self.control.set(f"lane.{self.index}.owner", 0)
            self.control.set(f"lane.{self.index}.ready", 0)
            os.close(self._lock_file)
            self._lock_file = -1

    def disown(self) -> None:
        """Let go of a lane that was inherited by a fork: it stays the parent's, and ends with the parent."""
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def _sync_pending(self) -> None:
        self._words[self._at["pending"]] = len(self.pending)

    def _settle(self) -> None:
        """Bring the counters into agreement with what the previous owner really wrote."""
        head: int = self.get("head")
        while self._is_whole(head + 1):
            head += 1
        self.control.set(f"lane.{self.index}.head", head)
        if head:
            # A crash between `append` and `clear` left the newest record pending as well.
            self.pending.forget_ticket(int(self._ring.array[(head - 1) % self.capacity]["ticket"]))
        self._sync_pending()
        counts = self.control.lane(self.index)
        self.control.set(f"lane.{self.index}.completed", head + counts["untrained"])
        accounted = head + sum(
            counts[name] for name in ("untrained", "pending", "expired", "superseded", "dropped", "rejected")
        )
        lost = counts["decided"] - accounted
        # An entry that was dropped for a newer one was superseded, if its owner had no time to count it.
        superseded = min(self.pending.replaced, max(0, lost - counts["lost"]))
        self.count("superseded", superseded)
        lost -= superseded
        if lost != counts["lost"]:
            log.warning("lane %d: %d decision(s) in flight were lost with its last owner", self.index, lost)
            self.control.set(f"lane.{self.index}.lost", max(0, lost))

    def _is_whole(self, number: int) -> bool:
        """True if the record with this number lies in its row, complete."""
        start = HEADER_BYTES + (number - 1) % self.capacity * self._row_bytes
        sequence, stored = self._ring_words[start >> 3], self._ring_words[(start >> 3) + 1]
        return sequence == number and stored == checksum(
            self._raw[start + PREFIX_BYTES : start + self._row_bytes], number
        )


def latency_bucket(nanoseconds: int) -> int:
    """Index of the duration bucket: 16 us * 2**(i/2), see layout.LATENCY_BUCKETS."""
    return bisect_left(_LATENCY_BOUNDS, nanoseconds)
