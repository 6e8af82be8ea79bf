"""The ring of a lane: completed experiences in rows that are overwritten oldest first. One writer, many readers.

Readers are in sampler.py. The writer's claim, and the lock between its threads, are the lane's (lane.py).
"""

from __future__ import annotations

from typing import Any
from zlib import adler32

import numpy as np
from numpy.typing import NDArray

from ..memory.arrays import HEADER_BYTES, SharedArray
from ..memory.claim import Refusal
from ..memory.control import Control
from ..memory.rows import PREFIX_BYTES, is_whole
from .records import RecordLayout, checksums


class Ring:
    """The writing end of lane `index`'s ring; `at` says where the lane's counters lie in `control.words`.

    Not thread-safe: the caller holds the lane. Once refused it raises TandemError at every write.
    """

    def __init__(self, control: Control, records: RecordLayout, index: int, at: dict[str, int]) -> None:
        self.records = records
        self.capacity: int = control.get("capacity")
        self.rows = SharedArray(control.instance, f"ring{index}", records.record, self.capacity)
        self._row_bytes = records.record.itemsize
        self._raw = self.rows.raw
        self._row_words = self.rows.word_view
        self._words = control.words
        self._head_word = at["head"]
        self._floor_word = at["floor"]
        self._completed_word = at["completed"]

    def _start(self, number: int) -> int:
        return HEADER_BYTES + (number - 1) % self.capacity * self._row_bytes

    def append(self, payload: bytes) -> int:
        """Append one completed experience and return its number (from 1).

        The order of the stores is the protocol: invalidate, write, make valid, count. It is that of rows.py, without
        the call.
        """
        words = self._words
        number: int = words[self._head_word] + 1
        row_bytes = self._row_bytes
        start = HEADER_BYTES + (number - 1) % self.capacity * row_bytes
        word = start >> 3
        rows = self._row_words
        rows[word] = 0
        self._raw[start + PREFIX_BYTES : start + row_bytes] = payload
        rows[word + 1] = adler32(payload) ^ (number & 0xFFFFFFFF)
        rows[word] = number
        words[self._head_word] = number
        words[self._completed_word] += 1
        return number

    def append_many(self, rows: NDArray[Any]) -> int:
        """Append completed experiences (structured [n], sequence and checksum not yet set); the last one's number.

        The same protocol as `append` for a whole stretch at once: invalidate all rows, write them, make them valid,
        count. More than the ring holds go in one ringful after the other.
        """
        size, words = len(rows), self._words
        if size > self.capacity:
            for start in range(0, size, self.capacity):
                self.append_many(rows[start : start + self.capacity])
            return int(words[self._head_word])
        head: int = words[self._head_word]
        numbers = np.arange(head + 1, head + size + 1, dtype=np.uint64)
        fresh = np.array(rows).view(np.uint8).reshape(size, self._row_bytes)
        sums = checksums(fresh[:, PREFIX_BYTES:], numbers.view(np.int64))
        fresh = fresh.view(np.uint64)
        fresh[:, 0] = 0
        fresh[:, 1] = sums
        target, first = self.rows.words, head % self.capacity
        until_end = min(size, self.capacity - first)
        for part, at in ((slice(0, until_end), first), (slice(until_end, size), 0)):
            stretch = slice(at, at + part.stop - part.start)
            target[stretch, 0] = 0
            target[stretch] = fresh[part]
            target[stretch, 0] = numbers[part]
        words[self._head_word] = head + size
        words[self._completed_word] += size
        return head + size

    def record(self, number: int) -> np.void:
        """A copy of the record with this number, which was appended lately."""
        start = self._start(number)
        # A third of what numpy's own copy of a structured row takes.
        row: np.void = np.frombuffer(bytearray(self._raw[start : start + self._row_bytes]), self.records.record)[0]
        return row

    def is_whole(self, number: int) -> bool:
        """True if the record with this number lies in its row, complete."""
        return is_whole(self._row_words, self._raw, self._start(number), self._row_bytes, number)

    def forget(self) -> None:
        """No record of before is an experience any more (a reset)."""
        words = self._words
        words[self._floor_word] = words[self._head_word]

    def close(self, refusal: Refusal) -> None:
        """The lane is this process's no more."""
        self._words = self._row_words = self._raw = refusal  # type: ignore[assignment]
