"""A child's log: a file that the child appends to and the supervisor keeps small.

Rotation copies and truncates: the child goes on writing through its own descriptor (opened for appending), whether or
not a supervisor is there. What is written between copy and truncation is lost. A file system that refuses costs log
lines and nothing else: the failure is remembered in `fault` and tried again later.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ...shared.memory.ownership import open_file
from ...shared.rate_limit import RateLimit

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_RETRY = 5.0
"""Seconds after a failed rotation before the next is tried."""
_SAY_EVERY = 60.0


class LogFile:
    """The log at `path`, rotated above `max_bytes` into `path.1` (newest) to `path.<files>` (oldest)."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.files = files
        self.fault = ""
        """What the file system refused at the last attempt; empty if all was well."""
        self.failures = 0
        """How often it refused."""
        self._held = -1
        self._retry_at = 0.0
        self._warn = RateLimit(_SAY_EVERY)

    def open(self) -> int:
        """A descriptor that appends, to be closed by the caller. Folders are made.

        Raises ForeignFile if another user made the file or it is a link, or OSError.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return open_file(os.fspath(self.path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def open_or_discard(self) -> int:
        """As `open`, for a process that must start whatever the disk says: what it writes may go nowhere."""
        try:
            descriptor = self.open()
        except OSError as error:
            self._refused(f"cannot be opened ({error.strerror}): nothing is logged until the process is restarted")
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self.fault = ""
        self.hold(descriptor)
        return descriptor

    def hold(self, descriptor: int | None = None) -> None:
        """Keep an own descriptor of the file that is written to, so that it stays small even if its name is removed."""
        with contextlib.suppress(OSError):
            held = os.dup(descriptor) if descriptor is not None else os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            self.release()
            self._held = held

    def release(self) -> None:
        """Close that descriptor. Idempotent."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def take_over(self, descriptor: int) -> None:
        """Let a descriptor of this process, which leads to a log that lost its name, lead to a new one at `path`."""
        try:
            opened = self.open()
        except OSError as error:
            self._refused(f"cannot be opened: {error.strerror}")
            return
        os.dup2(opened, descriptor)
        os.close(opened)
        self.hold(descriptor)
        self.fault = ""

    @property
    def is_lost(self) -> bool:
        """True if what is written goes to a file that has lost its name."""
        if self._held < 0:
            return False
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._held))
        except OSError:
            return True

    def rotate(self) -> bool:
        """Rotate if the file has grown above the limit; of a burst, the newest `max_bytes` are kept. True if it did.

        Never raises: if the disk refuses it is tried again after some seconds, and a file that has grown to twice the
        limit meanwhile is cut off.
        """
        try:
            if self.is_lost:
                self._cap_lost()
                return False
            size = self.path.stat().st_size
        except OSError:
            return False
        if size <= self.max_bytes or time.monotonic() < self._retry_at:
            return False
        try:
            self._rotate(size)
        except OSError as error:
            self._retry_at = time.monotonic() + _RETRY
            self._refused(f"cannot be rotated: {error.strerror}")
            if size > 2 * self.max_bytes:
                self._cut_off()
            return False
        self.fault = ""
        return True

    def _rotate(self, size: int) -> None:
        fresh = self.path.with_name(f"{self.path.name}.new")
        try:
            self._copy_end(size, fresh)
        except OSError:
            # The oldest goes in any case: its room may be what is missing.
            oldest = self._numbered(self.files)
            if not oldest.exists():
                _remove(fresh)
                raise
            _remove(oldest)
            try:
                self._copy_end(size, fresh)
            except OSError:
                _remove(fresh)
                raise
        for number in range(self.files - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                os.replace(older, self._numbered(number + 1))
        os.replace(fresh, self._numbered(1))
        os.truncate(self.path, 0)

    def _copy_end(self, size: int, target: Path) -> None:
        with self.path.open("rb") as source, target.open("wb") as copy:
            source.seek(size - self.max_bytes)
            left = self.max_bytes
            while left and (chunk := source.read(min(_CHUNK, left))):
                copy.write(chunk)
                left -= len(chunk)

    def _cut_off(self) -> None:
        with contextlib.suppress(OSError):
            os.truncate(self.path, 0)

    def _cap_lost(self) -> None:
        self._refused("was removed or replaced: nothing is logged there until the process is restarted", count=False)
        if os.fstat(self._held).st_size > self.max_bytes:
            os.ftruncate(self._held, 0)

    def _refused(self, what: str, count: bool = True) -> None:
        if count or not self.fault:
            self.failures += 1
        self.fault = f"{self.path} {what}"
        self._warn.warning(log, "%s", self.fault)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def tail(self, lines: int = 10, since: int = 0) -> list[str]:
        """The last lines, of at most 64 KiB, that were written after byte `since`."""
        return tail(self.path, lines, since)

    def size(self) -> int:
        """Bytes in the file now."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def tail(path: Path, lines: int = 10, since: int = 0) -> list[str]:
    """The last `lines` lines of a file, of at most 64 KiB, written after byte `since`; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            # After a rotation the file is shorter than `since`: then all of it is new.
            file.seek(max(since if since <= size else 0, size - 65536))
            text = file.read().decode("utf-8", "replace")
    except OSError:
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
        except OSError:
            chunk = b""
        position += len(chunk)
        yield chunk
