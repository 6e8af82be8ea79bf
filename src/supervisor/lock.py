"""The lock of an instance: a flock on `tandem.<instance>.lock`, held by the one process that may create, supervise or
remove its segments.

A flock goes with its holder, however that ended, so a stale lock file means nothing. The file names the holder for
messages and for `down`; it is removed while held, and whoever locked a removed file starts over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from ..shared.errors import SegmentMissing, SupervisorError
from ..shared.memory.ownership import OWN, open_file
from ..shared.memory.processes import is_same_process, own_identity
from ..shared.memory.segments import open_segment, refuse_foreign, segment_path


class InstanceBusy(SupervisorError):
    """The instance has a living supervisor or is being cleaned; `holder` is its process id (0: unknown)."""

    def __init__(self, instance: str, holder: int) -> None:
        self.instance = instance
        self.holder = holder
        super().__init__(f"instance {instance!r} is already taken by process {holder or 'unknown'} (`ctl status`)")


class InstanceLock:
    """The lock of one instance, taken at construction.

    Raises InstanceBusy after `timeout` seconds, or ForeignFile if the instance or the lock is another user's.
    """

    def __init__(self, instance: str, timeout: float = 0.0) -> None:
        self.instance = instance
        self.path = segment_path(instance, "lock")
        refuse_foreign(instance)
        deadline = time.monotonic() + timeout
        while True:
            descriptor = self._open()
            if _lock_now(descriptor):
                if _is_the_file(descriptor, self.path):
                    break
                os.close(descriptor)
                continue
            os.close(descriptor)
            if time.monotonic() >= deadline:
                raise InstanceBusy(instance, holder(instance)[0])
            time.sleep(0.02)
        self._descriptor = descriptor
        # The flock counts, the text is for messages: a full memory is no reason to give up.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, "{} {}\n".format(*own_identity()).encode(), 0)

    def _open(self) -> int:
        while True:
            try:
                return open_file(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, OWN, 0o600)
            except FileExistsError:
                pass
            try:
                return open_segment(self.instance, "lock", whose=OWN)
            except SegmentMissing:
                continue  # its holder removed it between the two

    def release(self, remove: bool = True) -> None:
        """Give the lock back, with its file unless `remove` is false. Idempotent."""
        if self._descriptor < 0:
            return
        if remove and _is_the_file(self._descriptor, self.path):
            os.unlink(self.path)
        os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> InstanceLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(instance: str) -> tuple[int, int]:
    """Process id and start ticks of the living process that holds the lock; (0, 0) if nobody does.

    Raises ForeignFile if the lock is another user's: the number in it may be that of any process.
    """
    try:
        descriptor = open_segment(instance, "lock", writable=False, whose=OWN)
    except SegmentMissing:
        return 0, 0
    try:
        words = os.pread(descriptor, 64, 0).split()
        if _lock_now(descriptor):
            return 0, 0
    finally:
        os.close(descriptor)
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return 0, 0
    pid, ticks = int(words[0]), int(words[1])
    return (pid, ticks) if is_same_process(pid, ticks) else (0, 0)


def _lock_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_the_file(descriptor: int, path: str) -> bool:
    """True if `path` still names the file that is open: another holder may have removed it meanwhile."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)
