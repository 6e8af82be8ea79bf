"""Taking versions: a reader's end of the slots (slots.py has the protocol)."""

from __future__ import annotations

import enum
from typing import Final

import torch

from ..memory import layout
from .slots import Slots, checksum


class Look(enum.Enum):
    """What came of a look for new weights. Only TAKEN is true: a plain `if` takes no other for it."""

    TAKEN = "taken"
    NOTHING_NEW = "nothing new"
    BUSY = "busy"
    """The slot of the newest version is being written already: the next look will find a newer one elsewhere."""

    def __bool__(self) -> bool:
        return self is _TAKEN


# Names of their own: until Python 3.12 reading `Look.TAKEN` takes as long as half a look.
_TAKEN: Final = Look.TAKEN
_NOTHING_NEW: Final = Look.NOTHING_NEW
_BUSY: Final = Look.BUSY


class Subscriber:
    """A reader's end: finds and copies new versions. Never waits, never takes an older version.

    `version` is the one taken last (-1: none). With `verify` a copy is also compared with the slot's checksum: where
    loads may pass loads, the sequence alone proves nothing.
    """

    def __init__(self, slots: Slots, verify: bool = False) -> None:
        self._slots = slots
        self._words = slots.control.words
        self._version_word = layout.offset("version") >> 3
        self._verify = verify
        self.version = -1
        self._index = 0
        self._word = 0
        self._announced = 0

    def look(self) -> Look:
        """Find the slot of a version newer than the one taken: TAKEN means that there is one, for `hold` to take."""
        words = self._words
        version = words[self._version_word]
        if version == self.version:
            return _NOTHING_NEW
        index = self._slots.find(version) if version > self.version else -1
        if index < 0:
            return _BUSY
        self._index, self._word, self._announced = index, self._slots.sequence_words[index], version
        return _TAKEN

    def hold(self) -> torch.Tensor:
        """Take the version that `look` found where it is: its slot (uint8 [bytes]), to be read in place.

        What was computed from it counts only if `is_whole` afterwards.
        """
        self.version = self._announced
        return self._slots.data[self._index]

    def is_whole(self) -> bool:
        """True if the slot that `look` found still holds the version that was announced then."""
        return bool(self._words[self._word] == 2 * self._announced)

    def drawn_ns(self) -> int:
        """When the experiences of the last training step of the version taken last were drawn (monotonic clock).

        0 if it came from no step, or if its slot is written again already.
        """
        drawn: int = self._words[self._word + 3]
        return drawn if self.is_whole() else 0

    def refresh(self, target: torch.Tensor) -> Look:
        """Copy the newest version into `target` (uint8 [bytes]).

        If the slot was BUSY, `target` may hold anything, and the next call looks again.
        """
        found = self.look()
        if found is not _TAKEN:
            return found
        target.copy_(self._slots.data[self._index])
        if not self.is_whole() or (self._verify and checksum(target) != self._words[self._word + 1]):
            return _BUSY
        self.version = self._announced
        return _TAKEN
