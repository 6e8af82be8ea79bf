"""Broken copies of the protocols. Each proof must fail on one of them, or it proves nothing.

They write and read shared memory by the documented layout alone, so that they stay what they are when the
implementation changes.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tandem.shared.experiences.lane import Lane
from tandem.shared.experiences.sampler import ReplayReader
from tandem.shared.memory import layout
from tandem.shared.memory.arrays import HEADER_BYTES, SharedArray
from tandem.shared.memory.control import Control
from tandem.shared.memory.rows import PREFIX_BYTES, checksum
from tandem.shared.weights.publisher import Publisher
from tandem.shared.weights.slots import Slots
from tandem.shared.weights.slots import checksum as weights_checksum
from tandem.shared.weights.subscriber import Look, Subscriber
from tandem.trainer_proc.flat_leaf import Joined


def holder(control: Control) -> int:
    """Index of the slot of the announced version; 0 if none holds it."""
    sequence = 2 * control.get("version")
    slots = range(control.get("slots"))
    return next((index for index in slots if control.get(f"slot.{index}.sequence") == sequence), 0)


class _Publishing(Publisher):
    def __init__(self, slots: Slots) -> None:
        super().__init__(slots)
        self.slots = slots
        self.control = slots.control

    def slot(self) -> tuple[torch.Tensor, str]:
        """The slot that is next in turn."""
        index = (holder(self.control) + 1) % self.slots.count
        return self.slots.data[index], f"slot.{index}."


class NoOddMark(_Publishing):
    """Writes into a slot without saying so."""

    def publish(self, flat: torch.Tensor, version: int) -> None:
        data, slot = self.slot()
        data.copy_(flat)
        self.control.set(slot + "checksum", weights_checksum(data))
        self.control.set(slot + "sequence", 2 * version)
        self.control.set("version", version)


class CounterFirst(_Publishing):
    """Announces a version before it is there."""

    def publish(self, flat: torch.Tensor, version: int) -> None:
        data, slot = self.slot()
        self.control.set("version", version)
        self.control.set(slot + "sequence", 2 * version - 1)
        data.copy_(flat)
        self.control.set(slot + "checksum", weights_checksum(data))
        self.control.set(slot + "sequence", 2 * version)


class Unguarded(Subscriber):
    """Copies the announced slot without looking at its sequence."""

    def __init__(self, slots: Slots, verify: bool = False) -> None:
        super().__init__(slots, verify)
        self.slots = slots
        self.control = slots.control

    def refresh(self, target: torch.Tensor) -> Look:
        version = self.control.get("version")
        if version == self.version:
            return Look.NOTHING_NEW
        target.copy_(self.slots.data[holder(self.control)])
        self.version = version
        return Look.TAKEN


class Lenient(Unguarded):
    """Takes whatever even sequence the slot has that held the announced version, and calls that the version."""

    def refresh(self, target: torch.Tensor) -> Look:
        version = self.control.get("version")
        if version == self.version:
            return Look.NOTHING_NEW
        index = holder(self.control)
        sequence = self.control.get(f"slot.{index}.sequence")
        if sequence % 2:
            return Look.BUSY
        target.copy_(self.slots.data[index])
        if self.control.get(f"slot.{index}.sequence") != sequence:
            return Look.BUSY
        self.version = sequence // 2
        return Look.TAKEN


class _Appending(Lane):
    def __init__(self, control: Control, records: Any, *arguments: Any) -> None:
        super().__init__(control, records, *arguments)
        self.mutant_ring = SharedArray(control.instance, f"ring{self.index}", records.record, control.get("capacity"))
        self._writer.append = self.append  # type: ignore[method-assign]

    def append(self, payload: bytes) -> int:
        return self.ring.append(payload)

    def place(self) -> tuple[int, int, int]:
        """Number, first byte and first word of the next record."""
        number = self.get("head") + 1
        start = HEADER_BYTES + (number - 1) % self.ring.capacity * self.mutant_ring.row_bytes
        return number, start, start >> 3

    def write_payload(self, start: int, payload: bytes) -> None:
        """Word by word, so that a reader or a kill in the middle is likely."""
        for at in range(0, len(payload), 8):
            self.mutant_ring.raw[start + PREFIX_BYTES + at : start + PREFIX_BYTES + at + 8] = payload[at : at + 8]

    def count_record(self, number: int) -> None:
        self.control.set(f"lane.{self.index}.head", number)
        self.control.add(f"lane.{self.index}.completed")


class NoInvalidation(_Appending):
    """Writes into a row that readers still take for valid."""

    def append(self, payload: bytes) -> int:
        number, start, word = self.place()
        self.write_payload(start, payload)
        self.mutant_ring.word_view[word + 1] = checksum(payload, number)
        self.mutant_ring.word_view[word] = number
        self.count_record(number)
        return number


class ValidFirst(_Appending):
    """Makes a row valid, and counts it, before it is written."""

    def append(self, payload: bytes) -> int:
        number, start, word = self.place()
        self.mutant_ring.word_view[word] = number
        self.count_record(number)
        self.write_payload(start, payload)
        self.mutant_ring.word_view[word + 1] = checksum(payload, number)
        return number


class Uncounted(_Appending):
    """Forgets to count now and then."""

    def append(self, payload: bytes) -> int:
        number = super().append(payload)
        if number % 100 == 0:
            self.control.add(f"lane.{self.index}.completed", -1)
        return number


class Lockless(Lane):
    """Lets several threads in at once."""

    @contextmanager
    def hold(self) -> Any:
        yield self._writer


class Heedless(Lane):
    """Does not look whether the lane is still its own."""

    def check(self) -> None:
        pass

    def _defend(self) -> None:
        pass


class Hasty(Lane):
    """Says that a part of a reward counts without looking whether the decision's owner still adds up."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.forwarded.will_count = lambda found: True  # type: ignore[method-assign]


class Oblivious(Lane):
    """Gives decisions up, and completes them, without looking whether another process has a reward for them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._writer.complete = self._complete  # type: ignore[method-assign]
        self._writer._ask_before_removing = lambda key: None  # type: ignore[method-assign]

    def _complete(self, key: bytes, reward: float) -> Any:
        place = self.pending.place_of(key)
        return None if place is None else self._writer._finish(key, place, reward)


class HeedlessPublisher(_Publishing):
    """Publishes as documented, and does not look whether another trainer has taken over."""

    def publish(self, flat: torch.Tensor, version: int) -> None:
        data, slot = self.slot()
        self.control.set(slot + "sequence", 2 * version - 1)
        data.copy_(flat)
        self.control.set(slot + "checksum", weights_checksum(data))
        self.control.set(slot + "sequence", 2 * version)
        self.control.set("version", version)


class Unchecked(ReplayReader):
    """Copies rows without looking at their sequence."""

    def sample(self, count: int) -> Any:
        head, capacity = self.control.get("lane.0.head"), self.control.get("capacity")
        size = min(head, capacity)
        if not hasattr(self, "mutant_ring"):
            self.mutant_ring = SharedArray(self.control.instance, "ring0", self.records.record, capacity)
        picks = self.rng.choice(size, size=min(count, size), replace=False) if size else np.empty(0, np.int64)
        rows = self.mutant_ring.words[(picks + head - size) % capacity]
        self.sampled += len(rows)
        return rows.view(self.records.record).reshape(-1)


def set_whole(control: Control, name: str, value: int) -> None:
    control.set(name, value)


def set_packed(control: Control, name: str, value: int) -> None:
    """struct.pack_into zeroes the bytes before it writes them."""
    struct.pack_into("<Q", control.bytes, layout.offset(name), value)


PUBLISHERS: dict[str, Any] = {
    "Publisher": Publisher,
    "NoOddMark": NoOddMark,
    "CounterFirst": CounterFirst,
    "HeedlessPublisher": HeedlessPublisher,
}
SUBSCRIBERS: dict[str, Any] = {"Subscriber": Subscriber, "Unguarded": Unguarded, "Lenient": Lenient}
LANES: dict[str, Any] = {
    "Lane": Lane,
    "NoInvalidation": NoInvalidation,
    "ValidFirst": ValidFirst,
    "Uncounted": Uncounted,
    "Lockless": Lockless,
    "Heedless": Heedless,
    "Oblivious": Oblivious,
    "Hasty": Hasty,
}
READERS: dict[str, Any] = {"ReplayReader": ReplayReader, "Unchecked": Unchecked}
COUNTER_WRITERS: dict[str, Any] = {"whole": set_whole, "packed": set_packed}


class Unmended(Joined):
    """A flat leaf that trusts its parameters to stay joined to it."""

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        super().__init__(parameters)
        super().zero()

    def zero(self) -> None:
        self._gradient.zero_()

    def collect(self) -> None:
        pass
