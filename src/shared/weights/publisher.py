"""Publishing versions: the trainer's end of the slots (slots.py has the protocol)."""

from __future__ import annotations

import time

import torch

from ..errors import TandemError
from ..memory import layout
from ..memory.claim import WORD
from ..memory.control import Control
from ..memory.segments import TRAINER_SEGMENT, claim_segment
from .slots import Slots, checksum


def claim_trainer(instance: str) -> int | None:
    """Hold the flock of whoever trains: its descriptor, or None if another holds it.

    A publisher that was made before this one's claim publishes no more, should its process still live.
    """
    descriptor = claim_segment(instance, TRAINER_SEGMENT)
    if descriptor is not None:
        control = Control.attach(instance, check_schema=False)
        word = layout.offset("trainer.claims") >> 3
        control.words[word] = (control.words[word] + 1) & WORD
        control.close()
    return descriptor


class Publisher:
    """The trainer's end: publishes versions. One per instance: make it after `claim_trainer`."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._control = slots.control
        self._words = slots.control.words
        self._version_word = layout.offset("version") >> 3
        self._claims_word = layout.offset("trainer.claims") >> 3
        self._claim: int = self._words[self._claims_word]
        self._published_words = layout.offset("published_ns") >> 3, layout.offset("published_at") >> 3
        self._last = -1, -1
        """Version and number of the last publication of this publisher."""

    @property
    def version(self) -> int:
        """The newest published version."""
        return int(self._words[self._version_word])

    @property
    def publications(self) -> int:
        """Number of the newest publication; that of version 0 is 0.

        Looked up in the slot of the newest version: a publisher that died may have begun another one.
        """
        version = self._words[self._version_word]
        if version == self._last[0]:
            return self._last[1]
        newest = self._slots.find(version)
        return int(self._words[self._slots.sequence_words[newest] + 2]) if newest >= 0 else 0

    def publish(self, flat: torch.Tensor, version: int, drawn_ns: int = 0) -> None:
        """Publish `flat` (uint8 [bytes], CPU) as `version`, which must be above the published one (or 0, at creation).

        `drawn_ns` is when the experiences of its last training step were drawn, on the monotonic clock.

        The order of the stores is the protocol. An exception or a kill between any two of them leaves every
        announced version readable. Raises TandemError if another trainer has taken over.
        """
        words = self._words
        if words[self._claims_word] != self._claim:
            raise TandemError(
                f"instance {self._control.instance!r}: another trainer has taken over; nothing is published"
            )
        if version <= words[self._version_word] and version != 0:
            raise ValueError(f"version {version} is not above the published version {self.version}")
        number = self.publications + 1 if version else 0
        index = number % self._slots.count
        slot = self._slots.data[index]
        sequence_word = self._slots.sequence_words[index]
        words[sequence_word] = max(0, 2 * version - 1)
        words[sequence_word + 2] = number
        words[sequence_word + 3] = drawn_ns
        slot.copy_(flat)
        words[sequence_word + 1] = checksum(slot)
        words[sequence_word] = 2 * version
        words[self._version_word] = version
        self._last = version, number
        published_ns, published_at = self._published_words
        words[published_ns] = time.monotonic_ns()
        self._control.floats[published_at] = time.time()
