"""Rewards for decisions of other lanes: an outbox ring per lane, read by the lanes that own the decisions.

A reward may arrive at a server process that did not decide. That process finds the decision in the pending tables,
which everybody can read, and posts (ticket, reward) to its own outbox; the owner looks at the outboxes and completes
the decision if it is still pending. A ticket names one decision for ever, so reading a letter twice changes nothing.
One writer per outbox, its lane's owner; letters are written like ring rows.
"""

from __future__ import annotations

import numpy as np

from . import layout
from .arrays import SharedArray
from .control import Control
from .pending import is_whole
from .records import PREFIX_BYTES, TICKET_BITS, RecordLayout, checksum, checksums, key_hash

LETTER = np.dtype([("sequence", "<u8"), ("checksum", "<u8"), ("ticket", "<u8"), ("reward", "<f8")])
OUTBOX_LETTERS = 1024


class Post:
    """The outboxes of all lanes and the pending tables of the others, seen from lane `index`."""

    def __init__(self, control: Control, records: RecordLayout, index: int) -> None:
        self._control = control
        self._records = records
        self._index = index
        lanes: int = control.get("lanes")
        self._outboxes = [SharedArray(control.instance, f"mail{lane}", LETTER, OUTBOX_LETTERS) for lane in range(lanes)]
        self._others = {
            lane: SharedArray(
                control.instance, f"pending{lane}", records.pending, control.get("pending_capacity")
            ).array
            for lane in range(lanes)
            if lane != index
        }
        self._heads = [layout.offset(f"lane.{lane}.mail_head") >> 3 for lane in range(lanes)]
        self._claims = [layout.offset(f"lane.{lane}.claims") >> 3 for lane in range(lanes)]
        # What is still in an outbox is read again after a restart: letters are harmless to read twice.
        self._read = [max(0, control.words[at] - OUTBOX_LETTERS) for at in self._heads]

    def find(self, key: bytes) -> np.void | None:
        """A copy of the entry under `key` in another lane's pending table, or None."""
        wanted = key_hash(key)
        for lane, table in self._others.items():
            if not self._control.words[self._claims[lane]]:
                continue
            for place in np.flatnonzero(table["owner_hash"] == wanted):
                entry: np.void = table[place].copy()
                if bytes(entry["owner"]) == key and is_whole(entry):
                    return entry
        return None

    @property
    def waiting(self) -> bool:
        """True if another outbox has letters that were not looked at."""
        words = self._control.words
        return [words[at] for at in self._heads] != self._read

    def send(self, ticket: int, reward: float) -> None:
        """Post a reward for the decision `ticket` of another lane. Called while holding the lane."""
        words = self._control.words
        number: int = words[self._heads[self._index]] + 1
        outbox = self._outboxes[self._index]
        place = (number - 1) % OUTBOX_LETTERS
        letter = np.array([(number, 0, ticket, reward)], LETTER)
        row = outbox.words[place]
        row[0] = 0
        row[2:] = letter.view(np.uint64)[2:]
        row[1] = checksum(letter.tobytes()[PREFIX_BYTES:], number)
        row[0] = number
        words[self._heads[self._index]] = number

    def receive(self) -> list[tuple[int, float]]:
        """Letters to this lane that were not read yet: tickets and rewards."""
        words, found = self._control.words, []
        for lane, head_at in enumerate(self._heads):
            head = words[head_at]
            if head == self._read[lane]:
                continue
            if lane == self._index:
                self._read[lane] = head
                continue
            numbers = np.arange(max(self._read[lane], head - OUTBOX_LETTERS) + 1, head + 1, dtype=np.int64)
            self._read[lane] = head
            letters = self._outboxes[lane].array[(numbers - 1) % OUTBOX_LETTERS]
            sums = checksums(letters.view(np.uint8).reshape(len(letters), -1)[:, PREFIX_BYTES:], numbers)
            whole = (letters["sequence"] == numbers.astype(np.uint64)) & (letters["checksum"].astype(np.int64) == sums)
            mine = letters["ticket"] >> np.uint64(TICKET_BITS) == self._index
            found += [(int(letter["ticket"]), float(letter["reward"])) for letter in letters[whole & mine]]
        return found
