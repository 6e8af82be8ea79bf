"""Taking versions: a reader's end of the slots (slots.py has the protocol)."""

from __future__ import annotations

import torch

from ..memory import layout
from .slots import Slots, checksum


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
        self._word = 0
        self._announced = 0

    def newest(self) -> int | None:
        """Index of the slot that holds a version newer than the one taken; -1 if nothing is new.

        None if that slot is being written already: the next look will find a newer version elsewhere.
        """
        words = self._words
        version = words[self._version_word]
        if version == self.version:
            return -1
        index = self._slots.find(version) if version > self.version else -1
        if index < 0:
            return None
        self._word, self._announced = self._slots.sequence_words[index], version
        return index

    def hold(self, index: int) -> torch.Tensor:
        """The slot that `newest` found (uint8 [bytes]), to be read in place.

        What was computed from it counts only if `is_whole` afterwards.
        """
        self.version = self._announced
        return self._slots.data[index]

    def is_whole(self) -> bool:
        """True if the slot that `newest` found still holds the version that was announced then."""
        return bool(self._words[self._word] == 2 * self._announced)

    def drawn_ns(self) -> int:
        """When the experiences of the last training step of the version taken last were drawn (monotonic clock).

        0 if it came from no step, or if its slot is written again already.
        """
        drawn: int = self._words[self._word + 3]
        return drawn if self.is_whole() else 0

    def refresh(self, target: torch.Tensor) -> bool | None:
        """Copy the newest version into `target` (uint8 [bytes]): True if taken, False if nothing is new.

        None if the slot was being written: `target` may hold anything then, and the next call looks again.
        """
        index = self.newest()
        if index is None or index < 0:
            return None if index is None else False
        target.copy_(self._slots.data[index])
        if not self.is_whole() or (self._verify and checksum(target) != self._words[self._word + 1]):
            return None
        self.version = self._announced
        return True
