"""Partial rewards that were counted, by the id that their sender gave them: so that one sent again counts once.

Each lane keeps the newest of those that came in at its own process in its own segment (`mail<k>`), an entry of four
words: ticket, hash of the reward's id, the word that the cell of partial rewards (see experiences/earnings.py) is about
to get, and the cell with a state. The first entry holds the count of entries ever begun. An entry is there before the
cell is written, which is one store, and says afterwards that it was: whoever finds an entry that does not say so looks
whether the cell holds its word.

As with final rewards, two processes that are sent the same reward at the same moment see each other: each writes its
entry and then looks at the others'. Both may refuse then, and neither counts twice.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..experiences.forwarded_rewards import Cells
from ..memory.claim import WORD

_TICKET, _HASH, _WORD, _WHERE = range(4)
_BEGUN, _DONE = 1, 2


class Known(enum.Enum):
    """What the journals say of a partial reward."""

    NEW = "new"
    COUNTED = "counted"
    BEING_COUNTED = "being counted"
    """Another process has it in hand at this moment."""


class RewardJournal:
    """The journals of all lanes, seen from lane `index`. Not thread-safe: the lane is held around every call.

    `lives(lane)` says whether a lane's owner lives.
    """

    def __init__(self, cells: Cells, index: int, lives: Callable[[int], bool]) -> None:
        self._cells = cells
        self._index = index
        self._lives = lives
        self._own: NDArray[np.uint64] = cells.journals[index]
        self._places = {
            (entry[_TICKET], entry[_HASH]): place
            for place, entry in enumerate(self._own[1:].tolist(), 1)
            if entry[_TICKET] and entry[_WHERE] & 3 == _DONE
        }
        self._barrier = threading.Lock()
        self._at = 1
        self._settle()

    def begin(self, ticket: int, hashed: int, cell: int) -> Known:
        """A partial reward of the decision `ticket` came in, whose sum is kept in `cell` of each lane's segment.

        NEW: it is this process's to count, by `writing`, the store into its own cell, and `written`.
        """
        self._settle()
        if (ticket, hashed) in self._places:
            return Known.COUNTED
        own, entries = self._own, len(self._own) - 1
        count = int(own[0, 0])
        place = 1 + count % entries
        self._forget(place)
        own[place, _HASH] = hashed
        own[place, _WORD] = 0
        own[place, _WHERE] = cell << 2 | _BEGUN
        own[place, _TICKET] = ticket
        own[0, 0] = count + 1 & WORD
        self._at = place
        # What was stored must be seen before the others' entries are looked at.
        self._barrier.acquire(False)
        self._barrier.release()
        known = self._elsewhere(ticket, hashed)
        if known is not Known.NEW:
            own[place, _TICKET] = 0
        return known

    def writing(self, word: int) -> None:
        """The cell is about to get this word."""
        self._own[self._at, _WORD] = word

    def written(self) -> None:
        """The cell has got it: the reward is counted."""
        entry = self._own[self._at]
        # In this order: an exception in between is settled by the next call.
        self._places[int(entry[_TICKET]), int(entry[_HASH])] = self._at
        entry[_WHERE] = int(entry[_WHERE]) & ~3 | _DONE

    def _forget(self, place: int) -> None:
        entry = self._own[place]
        self._places.pop((int(entry[_TICKET]), int(entry[_HASH])), None)
        entry[_TICKET] = 0

    def _settle(self) -> None:
        """Whoever began the newest entry may not have come to say whether its cell was written, or to count it."""
        count, entries = int(self._own[0, 0]), len(self._own) - 1
        for number in (count - 1, count):
            self._at = 1 + number % entries
            entry = self._own[self._at]
            if not entry[_TICKET] or int(entry[_WHERE]) & 3 == _DONE:
                continue
            if self._is_in_cell(self._index, entry):
                self.written()
            else:
                self._forget(self._at)

    def _is_in_cell(self, lane: int, entry: NDArray[np.uint64]) -> bool:
        cells, cell, word = self._cells.by_lane[lane], int(entry[_WHERE]) >> 2, int(entry[_WORD])
        if cell + 1 >= len(cells):
            # Somebody wrote into the segment: no process of ours names such a cell.
            self._cells.note_damage(lane, cell, word, "an entry of the journal of rewards")
            return False
        return word != 0 and cells[cell] == int(entry[_TICKET]) and cells[cell + 1] == word

    def _elsewhere(self, ticket: int, hashed: int) -> Known:
        for lane, journal in enumerate(self._cells.journals):
            if lane == self._index:
                continue
            for place in np.flatnonzero((journal[1:, _HASH] == hashed) & (journal[1:, _TICKET] == ticket)) + 1:
                entry = journal[place].copy()
                if int(entry[_WHERE]) & 3 == _DONE or self._is_in_cell(lane, entry):
                    return Known.COUNTED
                if self._lives(lane):
                    return Known.BEING_COUNTED
        return Known.NEW
