"""Reading experiences: validated samples and recent records from the rings of all lanes.

Readers take no lock. A row is kept if its sequence is the expected one before and after its bytes were copied; a row
that its writer overtook meanwhile is given up and counted.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import SharedArray
from .control import Control
from .records import PREFIX_BYTES, RecordLayout, checksum

WEAK_MEMORY = platform.machine() not in ("x86_64", "AMD64")
"""Where loads may pass loads, the sequence alone proves nothing and every row's checksum is looked at too."""


class ReplayReader:
    """Reads the completed experiences of every lane. `torn` counts rows given up, `sampled` those returned."""

    def __init__(
        self, control: Control, records: RecordLayout, seed: int | None = None, verify: bool = WEAK_MEMORY
    ) -> None:
        self.control = control
        self.records = records
        self.capacity: int = control.get("capacity")
        self.lanes: int = control.get("lanes")
        self._rings = [
            SharedArray(control.instance, f"ring{index}", records.record, self.capacity) for index in range(self.lanes)
        ]
        self._verify = verify
        self.rng = np.random.default_rng(seed)
        self.torn = 0
        self.sampled = 0

    def _bounds(self) -> list[tuple[int, int]]:
        """For each lane the numbers of its records: above the first, up to and including the second."""
        bounds = []
        for index in range(self.lanes):
            head = self.control.get(f"lane.{index}.head")
            floor = self.control.get(f"lane.{index}.floor")
            bounds.append((max(floor, head - self.capacity), head))
        return bounds

    def size(self) -> int:
        """Completed experiences that can be sampled now."""
        return sum(head - low for low, head in self._bounds())

    def sample(self, count: int) -> NDArray[Any]:
        """At most `count` records drawn uniformly from all lanes, without repetition: structured array [n].

        Fewer come back if fewer are there, or if some were overwritten while they were read; rows decided
        before the last reset are left out.
        """
        bounds = self._bounds()
        total = sum(head - low for low, head in bounds)
        if total == 0 or count <= 0:
            return np.empty(0, self.records.record)
        picks = self.rng.choice(total, size=min(count, total), replace=False, shuffle=False)
        parts, before = [], 0
        for index, (low, head) in enumerate(bounds):
            size = head - low
            mine = picks if size == total else picks[(picks >= before) & (picks < before + size)] - before
            before += size
            if mine.size:
                parts.append(self._gather(index, (mine + (low + 1)).astype(np.uint64)))
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        first_version = self.control.get("first_version")
        if first_version:
            rows = rows[rows["version"] >= first_version]
        self.sampled += len(rows)
        return rows

    def recent(self, count: int) -> NDArray[Any]:
        """The newest `count` records of all lanes, in order of the decisions' times: structured array [n]."""
        parts = []
        for index, (low, head) in enumerate(self._bounds()):
            numbers = np.arange(max(low, head - count) + 1, head + 1, dtype=np.uint64)
            if numbers.size:
                parts.append(self._gather(index, numbers))
        if not parts:
            return np.empty(0, self.records.record)
        rows = np.concatenate(parts)
        newest: NDArray[Any] = rows[np.argsort(rows["timestamp"], kind="stable")][-count:]
        return newest

    def _gather(self, lane: int, numbers: NDArray[np.uint64]) -> NDArray[Any]:
        """Copy the rows with these numbers; those that were not whole and unchanged are left out."""
        words = self._rings[lane].words
        places = ((numbers - np.uint64(1)) % np.uint64(self.capacity)).astype(np.intp)
        before = words[:, 0].take(places)
        copied = words.take(places, axis=0)
        after = words[:, 0].take(places)
        valid = (before == numbers) & (after == numbers)
        if self._verify:
            valid &= self._checksums_match(copied, numbers)
        if not valid.all():
            self.torn += int(valid.size - np.count_nonzero(valid))
            copied = copied[valid]
        return copied.view(self.records.record).reshape(-1)

    def _checksums_match(self, copied: NDArray[np.uint64], numbers: NDArray[np.uint64]) -> NDArray[np.bool_]:
        raw = copied.view(np.uint8)
        return np.array(
            [
                checksum(raw[i, PREFIX_BYTES:].tobytes(), int(number)) == int(copied[i, 1])
                for i, number in enumerate(numbers)
            ],
            dtype=np.bool_,
        )
