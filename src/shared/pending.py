"""The pending table: decisions that wait for their reward, and all that is needed to compute it.

One writer, the lane's owner. An entry is `sequence (its ticket), checksum, the record's payload, key, context`;
sequence 0 is an empty place. Entries are written like ring rows: invalidate, write, make valid. The table outlives
its owner: the next one reads the valid entries back.
"""

from __future__ import annotations

import numpy as np

from .arrays import HEADER_BYTES, SharedArray
from .records import PENDING_KEY_BYTES, PREFIX_BYTES, RecordLayout, checksum, key_hash, with_reward


class PendingTable:
    """Pending decisions by key (encoded, at most PENDING_KEY_BYTES bytes). Not thread-safe: the lane holds a lock."""

    def __init__(self, shared: SharedArray, records: RecordLayout) -> None:
        self._shared = shared
        self._raw = shared.raw
        self._words = shared.word_view
        self._row_bytes = shared.row_bytes
        self._payload_bytes = records.record.itemsize - PREFIX_BYTES
        self._tickets = shared.words[:, 0]
        self._places: dict[bytes, int] = {}
        self._free: list[int] = []
        self.replaced = 0
        """Entries dropped at adoption because a newer one waits under the same key."""
        self._adopt()

    def _adopt(self) -> None:
        valid = []
        for place, row in enumerate(self._shared.array):
            if is_whole(row):
                valid.append((int(row["sequence"]), bytes(row["owner"]), place))
            else:
                self._words[self._start(place) >> 3] = 0
                self._free.append(place)
        self._free.reverse()
        for _, key, place in sorted(valid):
            if key in self._places:
                # The owner died while the newer decision took the older one's place.
                self.clear(key)
                self.replaced += 1
            self._places[key] = place

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

    def entry(self, key: bytes) -> np.void | None:
        """A copy of the entry, or None."""
        place = self._places.get(key)
        if place is None:
            return None
        entry: np.void = self._shared.array[place].copy()
        return entry

    def key_of(self, ticket: int) -> bytes | None:
        """Key of the entry with this ticket, or None."""
        found = np.flatnonzero(self._tickets == ticket)
        if not ticket or not len(found):
            return None
        key = bytes(self._shared.array[found[0]]["owner"])
        return key if self._places.get(key) == found[0] else None

    def payload_with_reward(self, key: bytes, reward: float) -> bytes | None:
        """The record's payload with its actual reward filled in, or None if there is no such entry."""
        place = self._places.get(key)
        if place is None:
            return None
        start = self._start(place) + PREFIX_BYTES
        return with_reward(self._raw[start : start + self._payload_bytes], reward)

    def store(self, ticket: int, payload: bytes, key: bytes, context: bytes) -> None:
        """Write an entry; the table must not be full. An older entry under the key is emptied afterwards."""
        place = self._free[-1]
        start = self._start(place)
        owner = key_hash(key).to_bytes(8, "little") + key.ljust(PENDING_KEY_BYTES, b"\0")
        body = b"".join((payload, owner, context)).ljust(self._row_bytes - PREFIX_BYTES, b"\0")
        self._words[start >> 3] = 0
        self._raw[start + PREFIX_BYTES : start + self._row_bytes] = body
        self._words[(start >> 3) + 1] = checksum(body, ticket)
        self._words[start >> 3] = ticket
        if key in self._places:
            self.clear(key)
            self._free.remove(place)
        else:
            self._free.pop()
        self._places[key] = place

    def clear(self, key: bytes) -> None:
        """Empty the entry's place."""
        place = self._places.pop(key)
        self._words[self._start(place) >> 3] = 0
        self._free.append(place)

    def forget_ticket(self, ticket: int) -> None:
        """Empty the entry of a decision that is complete already."""
        for key, place in list(self._places.items()):
            if self._words[self._start(place) >> 3] == ticket:
                self.clear(key)

    def older_than(self, moment: float) -> list[bytes]:
        """Keys of the entries whose decision was made before `moment` (seconds since 1970), oldest first."""
        found = []
        for key, place in self._places.items():
            if float(self._shared.array[place]["timestamp"]) >= moment:
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
