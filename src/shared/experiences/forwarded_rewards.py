"""What a lane tells the others: rewards for their decisions, decisions of theirs that it superseded, keys it waits for.

A reward may arrive at a server process that did not decide. It finds the decision in the pending tables, which
everybody can read, and leaves a message in its own segment. That has one cell for every place of every lane's pending
table: what is acknowledged always has room, and waits as long as the decision does. The decision's owner takes it in
with its next decision or beat, and looks for it before it gives the decision up. A cell names a ticket, and a ticket
names one decision for ever.

Nobody waits, so who comes first is settled by looks. A sender marks its cell, looks whether another has marked the
same decision, writes the message, and looks whether the owner has marked it meanwhile; the owner marks its own cell,
then looks for messages. A message is acknowledged only if the owner must see it.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import adler32

import numpy as np
from numpy.typing import NDArray

from ..memory import layout
from ..memory.arrays import HEADER_BYTES, SharedArray
from ..memory.claim import WORD, Refusal
from ..memory.control import Control
from ..memory.processes import is_same_process
from ..values import storable_reward
from .pending import KeyFilter, is_whole
from .records import TICKET_BITS, RecordLayout, key_hash

CELL = np.dtype([("ticket", "<u8"), ("reward", "<f4"), ("checksum", "<u4")])
SUPERSEDED = math.nan
"""In place of a reward: a newer decision waits under the same key elsewhere."""

_CONTENT = struct.Struct("<Qf")
_BITS = struct.Struct("<QI")
_FLOAT = struct.Struct("<f")


def cell_rows(lanes: int, pending_capacity: int) -> int:
    """Rows of a segment: two cells (a message, a partial reward) for each place of each lane's pending table, then the
    lane's KeyFilter, and its journal of partial rewards (two rows an entry; see shared/ids/reward_journal.py).
    """
    journal = 2 * (pending_capacity + 1)
    return 2 * lanes * pending_capacity + KeyFilter.size(pending_capacity) // CELL.itemsize + journal


@dataclass(frozen=True)
class Found:
    """A decision that waits in another lane: where, and a copy of its entry."""

    lane: int
    place: int
    entry: np.void

    @property
    def ticket(self) -> int:
        """The decision's name."""
        return int(self.entry["ticket"])

    @property
    def order(self) -> tuple[int, int]:
        """Of two decisions under one key the one with the higher order is the newer."""
        return int(self.entry["decided_ns"]), self.lane


class Cells:
    """The cells of all lanes, and the filters of the keys that wait in each, seen from lane `index`.

    `damaged(what)` is told of messages that make no sense.
    """

    def __init__(self, control: Control, index: int, damaged: Callable[[str], None]) -> None:
        lanes: int = control.get("lanes")
        capacity: int = control.get("pending_capacity")
        rows = cell_rows(lanes, capacity)
        segments = [SharedArray(control.instance, f"mail{lane}", CELL, rows) for lane in range(lanes)]
        # An unsigned word can hold whatever lies there; a float or a text could not be compared.
        self.by_lane = [segment.word_view for segment in segments]
        self.to_me = [segment.words[index * capacity : (index + 1) * capacity] for segment in segments]
        self.from_me = segments[index].words[: lanes * capacity]
        self._messages = lanes * capacity
        filters = HEADER_BYTES + 2 * self._messages * CELL.itemsize
        self.filters = [KeyFilter(segment.raw[filters:], capacity) for segment in segments]
        journal = 2 * self._messages + KeyFilter.size(capacity) // CELL.itemsize
        self.journals = [segment.words[journal:].reshape(capacity + 1, 4) for segment in segments]
        """The journal of each lane: uint64[capacity + 1, 4]."""
        self._capacity = capacity
        self._damaged = damaged
        self._told: dict[tuple[int, int], int] = {}

    def of(self, lane: int, place: int) -> int:
        """First word of the cell for a place of a lane's pending table."""
        return (HEADER_BYTES >> 3) + 2 * (lane * self._capacity + place)

    def of_partial(self, lane: int, place: int) -> int:
        """First word of the cell of partial rewards (see `earnings`) for a place of a lane's pending table."""
        return (HEADER_BYTES >> 3) + 2 * (self._messages + lane * self._capacity + place)

    def open(self, sender: int, cell: int, ticket: int) -> float | None:
        """What a message says: a reward, SUPERSEDED, or None if it makes no sense (told once) or is not there."""
        content = self.by_lane[sender][cell + 1]
        bits, checksum = content & 0xFFFFFFFF, content >> 32
        reward: float = _FLOAT.unpack(bits.to_bytes(4, "little"))[0]
        if adler32(_BITS.pack(ticket, bits)) == checksum and not math.isinf(reward):
            return reward
        if content:
            self.note_damage(sender, cell, content, "a message")
        return None

    def note_damage(self, sender: int, cell: int, content: int, what: str) -> None:
        """Tell once that the content of a cell makes no sense."""
        if self._told.get((sender, cell)) != content:
            if len(self._told) > 1000:
                self._told.clear()
            self._told[sender, cell] = content
            self._damaged(what)


class ForwardedRewards:
    """The cells of all lanes and the pending tables of the others, seen from lane `index`.

    `damaged(what)` is told of messages that make no sense. Not thread-safe: the lane holds its lock around every call.
    """

    def __init__(self, control: Control, records: RecordLayout, index: int, damaged: Callable[[str], None]) -> None:
        self._control = control
        self._words = control.words
        self._index = index
        self.cells = cells = Cells(control, index, damaged)
        self._own = cells.by_lane[index]
        self._my_cells = cells.of(index, 0)
        self.filter = cells.filters[index]
        capacity = control.get("pending_capacity")
        self._tables = {
            lane: SharedArray(control.instance, f"pending{lane}", records.pending, capacity).array
            for lane in range(control.get("lanes"))
            if lane != index
        }
        self._tickets = {lane: table["sequence"] for lane, table in self._tables.items()}
        self._hashes = {lane: table["owner_hash"] for lane, table in self._tables.items()}
        # Lane, where it counts its claims, its cells and its filter.
        self._others = [
            (lane, layout.offset(f"lane.{lane}.claims") >> 3, cells.by_lane[lane], cells.filters[lane])
            for lane in self._tables
        ]
        self._heads = [layout.offset(f"lane.{lane}.mail_head") >> 3 for lane in self._tables]
        self._head = layout.offset(f"lane.{index}.mail_head") >> 3
        self._read = [-1] * len(self._heads)
        self._barrier = threading.Lock()

    def settle(self) -> None:
        """Begin, or begin again after an exception: nothing half done is left in the lane's cells."""
        self.cells.from_me[self.cells.from_me[:, 1] == 0, 0] = 0
        self.cells.to_me[self._index][:] = 0
        # A message that was written and not announced is announced now.
        self._announce()
        self._read = [-1] * len(self._heads)

    def close(self, refusal: Refusal) -> None:
        """The lane is this process's no more."""
        self._own = refusal  # type: ignore[assignment]

    def _fence(self) -> None:
        """Make what was stored visible before anything is loaded: taking a lock is an atomic exchange."""
        self._barrier.acquire(False)
        self._barrier.release()

    @property
    def tables(self) -> dict[int, NDArray[Any]]:
        """The pending tables of the other lanes, by lane: structured arrays [places]."""
        return self._tables

    # Looking for decisions of others

    def look(self, key: bytes, hashed: int | None = None) -> list[Found]:
        """The decisions that wait under the key in other lanes, whether they have a message or not, newest first."""
        words, found = self._words, []
        if hashed is None:
            hashed = key_hash(key)
        for lane, claims, _, key_filter in self._others:
            if not words[claims] or not key_filter.may_hold(hashed):
                continue
            for place in np.flatnonzero(self._hashes[lane] == hashed):
                entry: np.void = self._tables[lane][place].copy()
                if bytes(entry["owner"]) == key and is_whole(entry) and int(entry["ticket"]) >> TICKET_BITS == lane:
                    found.append(Found(lane, int(place), entry))
        if len(found) > 1:
            found.sort(key=lambda item: item.order, reverse=True)
        return found

    def find(self, key: bytes) -> np.void | None:
        """A copy of the newest entry under `key` in another lane's table that still waits for its reward, or None."""
        for found in self.look(key):
            if not self.is_settled(found):
                return found.entry
        return None

    def by_ticket(self, ticket: int) -> Found | None:
        """The decision `ticket` if it waits in another lane."""
        lane = ticket >> TICKET_BITS
        tickets = self._tickets.get(lane)
        for place in () if tickets is None else np.flatnonzero(tickets == ticket):
            entry: np.void = self._tables[lane][place].copy()
            if is_whole(entry) and int(entry["ticket"]) == ticket:
                return Found(lane, int(place), entry)
        return None

    def is_settled(self, found: Found) -> bool:
        """True if a message or its owner has decided already what becomes of the decision."""
        cell, ticket = self.cells.of(found.lane, found.place), found.ticket
        return any(
            cells[cell] == ticket and (sender == found.lane or self.cells.open(sender, cell, ticket) is not None)
            for sender, cells in enumerate(self.cells.by_lane)
        )

    def verdict(self, found: Found) -> float | None:
        """What becomes of a decision for certain: a reward, SUPERSEDED, or None while that is being settled."""
        cell, ticket = self.cells.of(found.lane, found.place), found.ticket
        if self.cells.by_lane[found.lane][cell] == ticket:
            # The owner may have looked for messages before they were there.
            return None
        for sender, cells in enumerate(self.cells.by_lane):
            said = self.cells.open(sender, cell, ticket) if cells[cell] == ticket else None
            if said is not None:
                return said
        return None

    # Sending

    def send(self, found: Found, reward: float) -> bool:
        """Leave a reward, or SUPERSEDED, for a decision of another lane. False if it has its message already.

        True means that the owner will take it, whoever that is by then. Raises ValueError for a number that a record
        cannot hold. Called while holding the lane.
        """
        if storable_reward(reward) is None and not math.isnan(reward):
            raise ValueError(f"reward: {reward!r} cannot be stored; it must be finite as a 32-bit float")
        own, cell, ticket = self._own, self.cells.of(found.lane, found.place), found.ticket
        if own[cell] == ticket and self.cells.open(self._index, cell, ticket) is not None:
            return False
        own[cell + 1] = 0
        own[cell] = ticket
        self._fence()
        if self._is_contested(found, cell, ticket):
            own[cell] = 0
            return False
        bits = int.from_bytes(_FLOAT.pack(reward), "little")
        own[cell + 1] = adler32(_CONTENT.pack(ticket, reward)) << 32 | bits
        self._fence()
        if self._is_too_late(found, cell, ticket):
            return False
        self._announce()
        return True

    def _announce(self) -> None:
        self._words[self._head] = (self._words[self._head] + 1) & WORD

    def _is_contested(self, found: Found, cell: int, ticket: int) -> bool:
        """True if somebody else has marked the decision; a sender's mark without a message counts while it lives."""
        return any(
            cells[cell] == ticket
            and (sender == found.lane or self.cells.open(sender, cell, ticket) is not None or self.lives(sender))
            for sender, cells in enumerate(self.cells.by_lane)
            if sender != self._index
        )

    def _is_too_late(self, found: Found, cell: int, ticket: int) -> bool:
        """True if a message that was just written need not be seen by the owner, or is not the only one."""
        if self._is_closed(found, cell, ticket):
            return True
        return any(
            cells[cell] == ticket and self.cells.open(sender, cell, ticket) is not None
            for sender, cells in enumerate(self.cells.by_lane)
            if sender not in (self._index, found.lane)
        )

    def _is_closed(self, found: Found, cell: int, ticket: int) -> bool:
        """True if the owner is settling the decision, or has settled it.

        An owner that has marked the decision looked for messages afterwards, perhaps before this one was there. A mark
        is overwritten only after the entry was cleared.
        """
        return self.cells.by_lane[found.lane][cell] == ticket or self._tickets[found.lane][found.place] != ticket

    def will_count(self, found: Found) -> bool:
        """True if a partial reward that was kept for the decision before this call must be seen by its owner."""
        self._fence()
        return not self._is_closed(found, self.cells.of(found.lane, found.place), found.ticket)

    def lives(self, lane: int) -> bool:
        """True if the lane's owner lives."""
        get = self._control.get
        return is_same_process(get(f"lane.{lane}.owner"), get(f"lane.{lane}.owner_ticks"))

    # Receiving

    @property
    def waiting(self) -> bool:
        """True if another lane has sent messages, to whomever, since `receive` looked."""
        words = self._words
        return [words[at] for at in self._heads] != self._read

    def receive(self, tickets: NDArray[np.uint64]) -> list[tuple[int, float]]:
        """Places of this lane's pending table (whose tickets are given, uint64[n]) and what their messages say."""
        heads = [self._words[at] for at in self._heads]
        found = []
        for sender, head, read in zip(self._tables, heads, self._read, strict=True):
            if head == read:
                continue
            cells = self.cells.to_me[sender]
            for place in np.flatnonzero((cells[:, 0] == tickets) & (cells[:, 1] != 0) & (tickets != 0)):
                said = self.cells.open(sender, self.cells.of(self._index, int(place)), int(tickets[place]))
                if said is not None:
                    found.append((int(place), said))
        self._read = heads
        return found

    def mark(self, place: int, ticket: int) -> float | None:
        """The owner is about to settle its decision `ticket` in `place`: what its message says, None without one.

        No message that is not returned here will have been acknowledged.
        """
        cell, words = self._my_cells + 2 * place, self._words
        self._own[cell] = ticket
        self._fence()
        for sender, claims, cells, _ in self._others:
            if words[claims] and cells[cell] == ticket:
                said = self.cells.open(sender, cell, ticket)
                if said is not None:
                    return said
        return None
