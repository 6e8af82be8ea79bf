"""Reading experiences: validated samples and recent records from the rings of all lanes.

Readers take no lock and never hold up a writer. A record numbered n is only looked for once its lane's head says that
it was completed, so a row is whole if it still carries n after its bytes were copied: the writer invalidates a row
before it writes into it. A row that its writer overtook is given up and counted.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..memory import layout
from ..memory.arrays import SharedArray
from ..memory.control import Control
from ..memory.rows import PREFIX_BYTES
from .batch import BatchRoom
from .records import RecordLayout, checksums
from .strategies import Strategy, Uniform, Window

WEAK_MEMORY = platform.machine() not in ("x86_64", "AMD64")
"""Where loads may pass loads, the sequence alone proves nothing and every row's checksum is looked at too."""

_MOST_RECORDS = 2**62


class ReplayReader:
    """Reads the completed experiences of every lane. `torn` counts rows given up, `sampled` those returned."""

    def __init__(
        self,
        control: Control,
        records: RecordLayout,
        seed: int | None = None,
        verify: bool = WEAK_MEMORY,
        strategy: Strategy | None = None,
    ) -> None:
        self.control = control
        self.records = records
        self.capacity: int = control.get("capacity")
        self.lanes: int = control.get("lanes")
        self.rng = np.random.default_rng(seed)
        self.torn = 0
        self.sampled = 0
        self.strategy = strategy or Uniform()
        self.verify = verify
        self._rings = [
            SharedArray(control.instance, f"ring{index}", records.record, self.capacity) for index in range(self.lanes)
        ]
        self._words = [ring.words.view(np.int64) for ring in self._rings]
        self._sequences = [words[:, 0] for words in self._words]
        self._bounds_at = [
            (index, layout.offset(f"lane.{index}.head") >> 3, layout.offset(f"lane.{index}.floor") >> 3)
            for index in range(self.lanes)
        ]
        self._first_version_at = layout.offset("first_version") >> 3

    def window(self) -> Window:
        """What can be read at this moment."""
        words, lanes, total = self.control.words, [], 0
        for index, head_at, floor_at in self._bounds_at:
            head = words[head_at]
            # What is beyond is no count of records: somebody wrote into a lane that nobody owns now.
            if 0 < head < _MOST_RECORDS:
                low = max(words[floor_at], head - self.capacity)
                if head > low:
                    lanes.append((index, low, head - low))
                    total += head - low
        return Window(tuple(lanes), total)

    def size(self) -> int:
        """Completed experiences that can be sampled now."""
        return self.window().total

    def sample(self, count: int) -> NDArray[Any]:
        """At most `count` records by the reader's strategy, without repetition: a structured array [n] of its own.

        Fewer come back if fewer are there, or if some were overwritten while they were read; records decided
        before the last reset are left out.
        """
        room = BatchRoom(self.records, max(count, 0))
        return room.rows[: self.sample_into(room, count)]

    def sample_into(self, room: BatchRoom, count: int) -> int:
        """As `sample`, into preallocated memory: the first n rows of `room`; returns n."""
        window = self.window()
        count = min(count, room.capacity)
        if window.total == 0 or count <= 0:
            return 0
        first_version = self.control.words[self._first_version_at]
        picks = self.strategy.pick(self, window, count, first_version)
        filled = self._gather(window, picks, room.words)
        self.sampled += filled
        return filled

    def recent(self, count: int) -> NDArray[Any]:
        """The newest `count` records of all lanes, in order of the decisions' times: structured array [n]."""
        window = self.window()
        picks, before = [], 0
        for _, _, size in window.lanes:
            picks.append(np.arange(max(0, size - count), size, dtype=np.int64) + before)
            before += size
        if not picks:
            return np.empty(0, self.records.record)
        positions = np.concatenate(picks)
        room = BatchRoom(self.records, len(positions))
        rows = room.rows[: self._gather(window, positions, room.words)]
        newest: NDArray[Any] = rows[np.argsort(rows["timestamp"], kind="stable")][-count:]
        return newest

    def newer_than(self, marks: dict[int, int], most: int) -> NDArray[Any]:
        """Up to `most` records of each lane, its newest, with numbers above those in `marks` (by lane; 0 if it is not
        there), which are raised: a structured array [n]. Records decided before the last reset are left out.
        """
        window, parts = self.window(), []
        for index, low, size in window.lanes:
            head, mark = low + size, marks.get(index, 0)
            first = max(low, mark if mark <= head else 0, head - most)
            marks[index] = head
            positions = np.arange(first - low, size, dtype=np.int64)
            room = BatchRoom(self.records, len(positions))
            parts.append(room.rows[: self._gather_lane(index, low, positions, room.words)])
        if not parts:
            return np.empty(0, self.records.record)
        rows = np.concatenate(parts)
        newer: NDArray[Any] = rows[rows["version"] >= self.control.words[self._first_version_at]]
        return newer

    def column(self, window: Window, field: str) -> NDArray[Any]:
        """One field of every record in the window, [total, ...]. Not validated: for weighing, never for training."""
        parts = []
        for index, low, size in window.lanes:
            places = np.arange(low, low + size, dtype=np.int64) % self.capacity
            parts.append(self._rings[index].array[field][places])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _gather(self, window: Window, positions: NDArray[np.int64], out: NDArray[np.int64]) -> int:
        """Copy the records at these positions of the window to the front of `out`; how many were whole."""
        if len(window.lanes) == 1:
            index, low, _ = window.lanes[0]
            return self._gather_lane(index, low, positions, out)
        filled = before = 0
        for index, low, size in window.lanes:
            mine = positions[(positions >= before) & (positions < before + size)]
            if mine.size:
                filled += self._gather_lane(index, low, mine - before, out[filled:])
            before += size
        return filled

    def _gather_lane(self, lane: int, low: int, positions: NDArray[np.int64], out: NDArray[np.int64]) -> int:
        numbers = positions + (low + 1)
        # Cheaper than a remainder: a window never wraps more than once.
        places = positions + low % self.capacity
        places[places >= self.capacity] -= self.capacity
        copied = out[: len(numbers)]
        # mode="clip" lets numpy write straight into `out`; the places are in range by construction.
        self._words[lane].take(places, axis=0, out=copied, mode="clip")
        whole = self._sequences[lane][places] == numbers
        if self.verify:
            payloads = copied.view(np.uint8)[:, PREFIX_BYTES:]
            whole &= checksums(payloads, numbers) == copied[:, 1]
        if whole.all():
            return len(numbers)
        count = int(np.count_nonzero(whole))
        self.torn += len(numbers) - count
        out[:count] = copied[whole]
        return count
