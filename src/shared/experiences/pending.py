"""The pending table: decisions that wait for their reward, and all that is needed to compute it.

One writer, the lane's owner. An entry is `sequence (its ticket), checksum, the record's payload, key, context`;
sequence 0 is an empty place. Entries are written like ring rows: invalidate, write, make valid. The table outlives
its owner: the next one reads the valid entries back.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..memory.arrays import HEADER_BYTES, SharedArray
from ..memory.claim import Refusal
from ..memory.rows import PREFIX_BYTES, checksum, write_row
from .records import PENDING_KEY_BYTES, REASON_BYTES, TICKET_BITS, RecordLayout, key_hash, with_reward

NO_REQUEST = bytes(8 + REASON_BYTES)
"""Of a decision that answered no request with an id: see shared/ids/requests.py."""
_COUNT_BITS = 47
"""A ticket whose count needs more bits was not counted by anybody."""


class KeyFilter:
    """How many entries of a lane's table fall into each bucket of the keys' hashes; `memory` is shared, a byte each.

    Others see here that nothing waits under a key without searching the table. A bucket that reached 255 stays there.
    """

    def __init__(self, memory: memoryview, capacity: int) -> None:
        self._counts = memory[: self.size(capacity)]
        self._mask = len(self._counts) - 1

    @staticmethod
    def size(capacity: int) -> int:
        """Bytes: a power of two, at least 8 for each entry."""
        return 1 << max(6, (8 * capacity - 1).bit_length())

    def may_hold(self, hashed: int) -> bool:
        """False if no entry's key has this hash."""
        return self._counts[hashed & self._mask] != 0

    def add(self, hashed: int) -> None:
        """An entry is about to be stored."""
        at = hashed & self._mask
        count = self._counts[at]
        if count < 255:
            self._counts[at] = count + 1

    def remove(self, hashed: int) -> None:
        """An entry was cleared."""
        at = hashed & self._mask
        count = self._counts[at]
        if 0 < count < 255:
            self._counts[at] = count - 1

    def fill(self, hashes: list[int]) -> None:
        """Count these and nothing else."""
        counts = np.zeros(len(self._counts), np.int64)
        np.add.at(counts, [hashed & self._mask for hashed in hashes], 1)
        self._counts[:] = np.minimum(counts, 255).astype(np.uint8).tobytes()


class PendingTable:
    """Pending decisions by key (encoded, at most PENDING_KEY_BYTES bytes). Not thread-safe: the lane holds a lock.

    Entries that `lane` cannot have written are not taken over.
    """

    def __init__(
        self, shared: SharedArray, records: RecordLayout, lane: int = 0, key_filter: KeyFilter | None = None
    ) -> None:
        self._shared = shared
        self._lane = lane
        self._raw = shared.raw
        self._words = shared.word_view
        self._row_bytes = shared.row_bytes
        self._payload_bytes = records.record.itemsize - PREFIX_BYTES
        self._hash_at = records.record.itemsize >> 3
        self._filter = key_filter or KeyFilter(memoryview(bytearray(KeyFilter.size(1))), 1)
        self.tickets = shared.words[:, 0]
        """Ticket in each place, 0 if it is empty: uint64[places]."""
        # The oldest key of a plain dict is found only past the places of all that were deleted before it.
        self._places: OrderedDict[bytes, int] = OrderedDict()
        self._free: list[int] = []
        self.replaced = 0
        """Entries dropped at adoption because a newer one waits under the same key."""
        self.damaged = 0
        """Entries dropped at adoption because they made no sense."""
        self.adopt()

    def adopt(self) -> None:
        """Take over what lies in the table, when the lane is claimed or after an exception in the middle of a call."""
        now = time.monotonic_ns()
        valid: dict[int, tuple[bytes, int]] = {}
        bad = []
        for place in np.flatnonzero(self.tickets).tolist():
            row = self._shared.array[place]
            ticket = int(row["sequence"])
            count = ticket & ((1 << TICKET_BITS) - 1)
            is_own = ticket >> TICKET_BITS == self._lane and 0 < count < 1 << _COUNT_BITS and ticket not in valid
            if is_own and int(row["decided_ns"]) <= now and is_whole(row):
                valid[ticket] = bytes(row["owner"]), place
            else:
                bad.append(place)
        self.replaced, self.damaged = 0, len(bad)
        self._places = OrderedDict()
        for place in bad:
            self._words[self._start(place) >> 3] = 0
        for ticket in sorted(valid):
            key, place = valid[ticket]
            if key in self._places:
                # The owner died while the newer decision took the older one's place.
                self._words[self._start(self._places.pop(key)) >> 3] = 0
                self.replaced += 1
            self._places[key] = place
        taken = set(self._places.values())
        self._free = [place for place in reversed(range(len(self.tickets))) if place not in taken]
        self._filter.fill([self._words[(self._start(place) >> 3) + self._hash_at] for place in taken])

    def close(self, refusal: Refusal) -> None:
        """The table is this process's no more."""
        self._words = refusal  # type: ignore[assignment]

    def _start(self, place: int) -> int:
        return HEADER_BYTES + place * self._row_bytes

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def keys(self) -> list[bytes]:
        """The keys, oldest first."""
        return list(self._places)

    @property
    def is_full(self) -> bool:
        """True if no entry can be stored without clearing one."""
        return not self._free

    def oldest(self) -> bytes:
        """Key of the oldest entry. Raises StopIteration if there is none."""
        return next(iter(self._places))

    def place_of(self, key: bytes) -> int | None:
        """Where the key's entry lies, or None."""
        return self._places.get(key)

    def ticket_in(self, place: int) -> int:
        """Ticket of the entry in a place."""
        return self._words[(HEADER_BYTES + place * self._row_bytes) >> 3]

    @property
    def entries(self) -> NDArray[Any]:
        """All places of the table, also those where nothing waits: structured array [places]."""
        return self._shared.array

    def decided_in(self, place: int) -> int:
        """When the decision in a place was made (nanoseconds, monotonic clock)."""
        return int(self._shared.array[place]["decided_ns"])

    def entry(self, key: bytes) -> np.void | None:
        """A copy of the entry, or None."""
        place = self._places.get(key)
        if place is None:
            return None
        entry: np.void = self._shared.array[place].copy()
        return entry

    def key_in(self, place: int) -> bytes | None:
        """Key of the entry in a place, or None."""
        key = bytes(self._shared.array[place]["owner"])
        return key if self._places.get(key) == place else None

    def payload_with_reward(self, key: bytes, reward: float) -> bytes | None:
        """The record's payload with its actual reward filled in, or None if there is no such entry."""
        place = self._places.get(key)
        if place is None:
            return None
        start = self._start(place) + PREFIX_BYTES
        return with_reward(self._raw[start : start + self._payload_bytes], reward)

    # Many parameters: the columns of an entry.
    def store(
        self,
        ticket: int,
        payload: bytes,
        key: bytes,
        context: bytes,
        hashed: int | None = None,
        request: bytes = NO_REQUEST,
    ) -> int:
        """Write an entry; the table must not be full. An older entry under the key is emptied afterwards.

        `hashed` is the key's hash, if it is known already. Returns the time of the decision that the entry names.
        """
        place = self._free[-1]
        start = self._start(place)
        decided = time.monotonic_ns()
        if hashed is None:
            hashed = key_hash(key)
        times = hashed.to_bytes(8, "little") + decided.to_bytes(8, "little")
        body = b"".join((payload, times, request, key.ljust(PENDING_KEY_BYTES, b"\0"), context)).ljust(
            self._row_bytes - PREFIX_BYTES, b"\0"
        )
        # Before the entry is there: who looks must never be told that nothing waits under the key.
        self._filter.add(hashed)
        write_row(self._words, self._raw, start, ticket, body)
        if key in self._places:
            self.clear(key)
            # It was the last one, and `clear` put the older entry's place behind it: to search for it takes 0.1 ms.
            del self._free[-2]
        else:
            self._free.pop()
        self._places[key] = place
        return decided

    def clear(self, key: bytes) -> None:
        """Empty the entry's place."""
        place = self._places.pop(key)
        word = self._start(place) >> 3
        self._words[word] = 0
        self._free.append(place)
        self._filter.remove(self._words[word + self._hash_at])

    def forget_ticket(self, ticket: int) -> None:
        """Empty the entry of a decision that is complete already."""
        for key, place in list(self._places.items()):
            if self._words[self._start(place) >> 3] == ticket:
                self.clear(key)

    def older_than(self, moment: int, most: int | None = None) -> list[bytes]:
        """Keys of the entries whose decision was made before `moment` (nanoseconds, monotonic clock), oldest first.

        `most`: no more than so many.
        """
        found: list[bytes] = []
        for key, place in self._places.items():
            if len(found) == most or int(self._shared.array[place]["decided_ns"]) >= moment:
                break
            found.append(key)
        return found


def is_whole(entry: np.void) -> bool:
    """True if an entry (one row of the table) is valid and undamaged."""
    ticket = int(entry["sequence"])
    # The checksum covers the ticket's low half only: the record repeats the whole of it.
    return (
        ticket != 0
        and ticket == int(entry["ticket"])
        and checksum(entry.tobytes()[PREFIX_BYTES:], ticket) == int(entry["checksum"])
    )
