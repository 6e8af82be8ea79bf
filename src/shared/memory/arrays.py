"""Segments seen as numpy arrays: a 4096-byte .npy header, then the rows.

`np.load(path, mmap_mode="r")` works on a live segment. The header's magic is written last, so nobody loads
a half-made file.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LayoutMismatch, SegmentInvalid
from .segments import create, segment_facts, segment_name, segment_path

HEADER_BYTES = 4096
_MAGIC = b"\x93NUMPY"


class _Untracked(SharedMemory):
    """An attached segment that the resource tracker does not know and that closes only when nothing views it.

    Below Python 3.13 an attaching process would otherwise destroy the segment when it exits.
    """

    _registration = threading.Lock()

    def __init__(self, name: str) -> None:
        self._attach(name)
        # The mapping needs no descriptor, and views may keep it for as long as the process lives.
        os.close(self._fd)  # type: ignore[has-type]
        self._fd = -1

    def _attach(self, name: str) -> None:
        if sys.version_info >= (3, 13):
            super().__init__(name=name, track=False)
            return
        with self._registration:
            original = resource_tracker.register

            def register(tracked: str, kind: str) -> None:
                if tracked.lstrip("/") != name:
                    original(tracked, kind)

            resource_tracker.register = register  # type: ignore[assignment]
            try:
                super().__init__(name=name)
            finally:
                resource_tracker.register = original

    def close(self) -> None:
        # While an array views the memory, unmapping it would be a segmentation fault.
        with contextlib.suppress(BufferError):
            super().close()


def npy_header(dtype: np.dtype[Any], rows: int) -> bytes:
    """A version 1.0 .npy header for a one-dimensional array, padded with spaces to HEADER_BYTES."""
    descr = np.lib.format.dtype_to_descr(dtype)  # type: ignore[no-untyped-call]
    header = {"descr": descr, "fortran_order": False, "shape": (rows,)}
    text = repr(header).encode("latin1")
    room = HEADER_BYTES - len(_MAGIC) - 2 - 2 - 1
    if len(text) > room:
        raise ValueError(f"the dtype's description takes {len(text)} bytes and {room} fit into the header")
    return _MAGIC + b"\x01\x00" + (room + 1).to_bytes(2, "little") + text.ljust(room) + b"\n"


def create_array(instance: str, part: str, dtype: np.dtype[Any], rows: int, mode: int = 0o600) -> None:
    """Create a segment that holds `rows` zeroed rows of `dtype`. Raises SegmentExists or SegmentSpaceError."""
    header = npy_header(dtype, rows)
    descriptor = create(instance, part, HEADER_BYTES + rows * dtype.itemsize, mode)
    try:
        os.pwrite(descriptor, header[8:], 8)
        os.pwrite(descriptor, header[:8], 0)
    finally:
        os.close(descriptor)


class SharedArray:
    """An attached segment: `array` (structured, [rows]), `words` (uint64 [rows, words per row]) and `raw` (bytes).

    Raises SegmentMissing, ForeignFile, SegmentInvalid or LayoutMismatch (naming what differs). The arrays keep the
    mapping alive.
    """

    def __init__(self, instance: str, part: str, dtype: np.dtype[Any], rows: int) -> None:
        self.path = segment_path(instance, part)
        self.row_bytes = dtype.itemsize
        expected = npy_header(dtype, rows)
        size = HEADER_BYTES + rows * dtype.itemsize
        actual = segment_facts(instance, part).st_size
        if actual < size:
            raise SegmentInvalid(self.path, f"is {actual} bytes long and should be {size}")
        self._memory = _Untracked(segment_name(instance, part))
        # np.frombuffer holds the buffer, so that the mapping outlives every view.
        assert self._memory.buf is not None
        self.raw = self._memory.buf[:size]
        header = bytes(self.raw[:HEADER_BYTES])
        if header != expected:
            raise LayoutMismatch(self.path, _difference(header, expected))
        self.array: NDArray[Any] = np.frombuffer(self.raw, dtype=dtype, count=rows, offset=HEADER_BYTES)
        self.words: NDArray[np.uint64] = np.frombuffer(
            self.raw, dtype=np.uint64, count=rows * dtype.itemsize // 8, offset=HEADER_BYTES
        ).reshape(rows, dtype.itemsize // 8)
        self.word_view = self.raw.cast("Q")


def _difference(found: bytes, expected: bytes) -> str:
    if not found.startswith(_MAGIC):
        return "is not complete: its .npy magic is missing"
    return f"holds {found[10:].strip().decode('latin1')!r}, expected {expected[10:].strip().decode('latin1')!r}"
