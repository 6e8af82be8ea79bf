"""A child's log: a file that the child appends to and the supervisor keeps small.

Rotation copies and truncates: the child goes on writing through its own descriptor (opened for appending), whether or
not a supervisor is there. What is written between copy and truncation is lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..shared.ownership import open_file

_CHUNK = 1 << 20


class LogFile:
    """The log at `path`, rotated above `max_bytes` into `path.1` (newest) to `path.<files>` (oldest)."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.files = files

    def open(self) -> int:
        """A descriptor that appends, to be closed by the caller. Folders are made.

        Raises ForeignFile if another user made the file or it is a link, or OSError.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return open_file(os.fspath(self.path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def rotate(self) -> bool:
        """Rotate if the file has grown above the limit; of a burst, the newest `max_bytes` are kept. True if it did."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return False
        if size <= self.max_bytes:
            return False
        for number in range(self.files - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                os.replace(older, self._numbered(number + 1))
        with self.path.open("rb") as source, self._numbered(1).open("wb") as target:
            source.seek(size - self.max_bytes)
            left = self.max_bytes
            while left and (chunk := source.read(min(_CHUNK, left))):
                target.write(chunk)
                left -= len(chunk)
        os.truncate(self.path, 0)
        return True

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def tail(self, lines: int = 10, since: int = 0) -> list[str]:
        """The last lines, of at most 64 KiB, that were written after byte `since`."""
        return tail(self.path, lines, since)

    def size(self) -> int:
        """Bytes in the file now."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0


def tail(path: Path, lines: int = 10, since: int = 0) -> list[str]:
    """The last `lines` lines of a file, of at most 64 KiB, written after byte `since`; none if there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            # After a rotation the file is shorter than `since`: then all of it is new.
            file.seek(max(since if since <= size else 0, size - 65536))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:] if lines else []


def follow(path: Path, position: int) -> Iterator[bytes]:
    """New bytes of a growing file from `position` on, empty when there are none now; a rotation starts it over."""
    while True:
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if size < position:
                    position = 0
                file.seek(position)
                chunk = file.read(_CHUNK)
        except FileNotFoundError:
            chunk = b""
        position += len(chunk)
        yield chunk
