"""Segments of a decision log: one that grows, and those that are complete.

A growing segment, `<name>.open`, is records one after the other, as they lie in a ring: each with its number and its
checksum, so that whatever a kill leaves is told apart row by row. When it is full it becomes `<name>.npy`, written
under a hidden name, synced and renamed; then the open one is removed. If both are there, the `.npy` counts. Files
belong to their owner alone (0600).
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..durable import sync_folder
from ..experiences.records import TICKET_BITS, checksums
from ..memory.rows import PREFIX_BYTES

OPEN, COMPLETE = ".open", ".npy"


def whole_rows(data: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The records in a growing segment whose checksums are right: structured array [n]."""
    count = len(data) // dtype.itemsize
    rows: NDArray[Any] = np.frombuffer(data, dtype, count)
    whole: NDArray[Any] = rows[(sums_of(rows) == rows["checksum"]) & (rows["sequence"] > 0)]
    return whole


def sums_of(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """The checksum that each record should have: uint64[n] of a structured array [n], contiguous."""
    payloads = rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize)[:, PREFIX_BYTES:]
    return checksums(payloads, rows["sequence"].astype(np.int64)).astype(np.uint64)


class Segments:
    """The segments in a folder, for the one process that writes them.

    A segment is completed at `segment_bytes`; the oldest go when all of them take more than `most_bytes` or are older
    than `most_seconds`. Raises OSError if the disk refuses.
    """

    def __init__(
        self, folder: Path, dtype: np.dtype[Any], segment_bytes: int, most_bytes: int, most_seconds: float
    ) -> None:
        self.folder = folder
        self._dtype = dtype
        self._segment_bytes = segment_bytes
        self._most_bytes = most_bytes
        self._most_seconds = most_seconds
        self._path: Path | None = None
        self._size = 0
        for left in sorted(folder.glob(f"*{OPEN}")):
            self._complete(left)

    def complete_paths(self) -> list[Path]:
        """The complete segments, oldest first."""
        return sorted(path for path in self.folder.glob(f"*{COMPLETE}") if not path.name.startswith("."))

    def append(self, rows: NDArray[Any]) -> None:
        """Append records (structured array [n], with numbers and checksums)."""
        if self._path is None:
            # Names in the order of time, also within a second.
            self._path = self.folder / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{time.time_ns():020d}{OPEN}"
            self._size = 0
        data = rows.tobytes()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # At the end of what is known to be whole: a write that was cut short is written over.
            written = os.pwrite(descriptor, data, self._size)
            if written < len(data):
                raise OSError(28, "no space left on device", str(self._path))
        finally:
            os.close(descriptor)
        self._size += len(data)
        if self._size >= self._segment_bytes:
            self.rotate()

    def rotate(self) -> None:
        """Complete the segment that grows, and remove those that are too old or too many."""
        if self._path is not None:
            path, self._path = self._path, None
            self._complete(path)
        self._prune()

    def _complete(self, path: Path) -> None:
        final = path.with_suffix(COMPLETE)
        if not final.exists():
            rows = whole_rows(path.read_bytes(), self._dtype)
            if len(rows):
                hidden = path.with_name(f".{final.name}")
                descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    np.save(file, rows, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(hidden, final)
                sync_folder(self.folder)
        path.unlink(missing_ok=True)

    def _prune(self) -> None:
        paths = self.complete_paths()
        sizes = {path: path.stat().st_size for path in paths}
        total, oldest_allowed = sum(sizes.values()), time.time() - self._most_seconds
        for path in paths:
            if total <= self._most_bytes and path.stat().st_mtime >= oldest_allowed:
                break
            total -= sizes[path]
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def newest_numbers(self) -> dict[int, NDArray[np.int64]]:
        """Of each lane the numbers of its records in the newest complete segment; empty without one."""
        paths = self.complete_paths()
        if not paths:
            return {}
        rows = np.load(paths[-1], allow_pickle=False, mmap_mode="r")
        lanes, numbers = rows["ticket"] >> np.uint64(TICKET_BITS), rows["sequence"].astype(np.int64)
        return {int(lane): numbers[lanes == lane] for lane in np.unique(lanes)}
