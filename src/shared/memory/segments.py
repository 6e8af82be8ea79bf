"""Named shared-memory segments: where they lie, how they are created, found and removed.

Standard library only. A segment is created whole (O_EXCL, then fully allocated, so that a full file system is an
error here and never a SIGBUS later) and becomes valid when its maker writes its magic as the very last step. Nothing
but `ctl` removes one.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

from ..errors import ForeignFile, InstanceNameError, SegmentExists, SegmentInvalid, SegmentMissing, SegmentSpaceError
from .ownership import ANYONE, OWN, TRUSTED, check_facts, is_allowed, open_file

FOLDER = os.environ.get("TANDEM_SHM", "/dev/shm")
"""The shared-memory file system; the environment variable is for tests on a file system of their own."""
PREFIX = "tandem."
TRAINER_SEGMENT = "weights0"
"""Its flock is held by whoever trains."""
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def check_instance(instance: str) -> str:
    """Return `instance` if it can name an instance, else raise InstanceNameError (a ValueError): what is allowed."""
    if not 1 <= len(instance) <= 64 or not _NAME.issuperset(instance):
        hint = "" if instance or os.environ.get("TANDEM_INSTANCE") != "" else "; TANDEM_INSTANCE is set to nothing"
        raise InstanceNameError(f"instance {instance!r} is not a name of 1 to 64 letters, digits, '-' and '_'{hint}")
    return instance


def instance_name(asked: str | None = None) -> str:
    """The instance that is meant: the one asked for, else the environment's TANDEM_INSTANCE, else `default`."""
    return os.environ.get("TANDEM_INSTANCE", "default") if asked is None else asked


def segment_name(instance: str, part: str) -> str:
    """The name under which `multiprocessing.shared_memory` finds the segment."""
    return f"{PREFIX}{check_instance(instance)}.{part}"


def segment_path(instance: str, part: str) -> str:
    """The file of the segment."""
    return os.path.join(FOLDER, segment_name(instance, part))


def create(instance: str, part: str, size: int, mode: int = 0o600) -> int:
    """Create a segment of `size` zero bytes and return its descriptor (read and write, to be closed by the caller).

    Raises SegmentExists, ForeignFile if it is another user's, or SegmentSpaceError naming the bytes needed and free.
    """
    path = segment_path(instance, part)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        segment_facts(instance, part, OWN)
        raise SegmentExists(path, "exists already; `ctl down` or `ctl clean` removes it") from None
    try:
        os.fchmod(descriptor, mode)
        os.posix_fallocate(descriptor, 0, size)
    except (OSError, OverflowError) as error:
        os.close(descriptor)
        os.unlink(path)
        if isinstance(error, OverflowError) or error.errno in (errno.ENOSPC, errno.EFBIG, errno.ENOMEM):
            space = os.statvfs(FOLDER)
            raise SegmentSpaceError(path, size, space.f_bavail * space.f_frsize) from None
        raise
    return descriptor


def open_segment(instance: str, part: str, writable: bool = True, whose: str = "") -> int:
    """Open an existing segment and return its descriptor; no link is followed.

    `whose` it may be: by default anyone's to be read, and TRUSTED to be written, which is what those do who go by what
    it says. Raises SegmentMissing or ForeignFile.
    """
    path = segment_path(instance, part)
    try:
        return open_file(path, os.O_RDWR if writable else os.O_RDONLY, whose or (TRUSTED if writable else ANYONE))
    except FileNotFoundError:
        raise _missing(path) from None


def segment_facts(instance: str, part: str, whose: str = TRUSTED) -> os.stat_result:
    """Size, owner and mode of a segment that is to be mapped by its name. Raises SegmentMissing or ForeignFile.

    In a folder with the sticky bit nobody but its owner can put another file under the name afterwards.
    """
    path = segment_path(instance, part)
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        raise _missing(path) from None
    check_facts(path, facts, whose)
    return facts


def _missing(path: str) -> SegmentMissing:
    return SegmentMissing(path, "there is no such segment; is the instance running? (`ctl up`)")


def foreign_segments(instance: str) -> list[ForeignFile]:
    """What of an instance belongs to another user or is no regular file: an error for each, not raised."""
    found = []
    for part in list_segments(instance).get(instance, []):
        try:
            segment_facts(instance, part, OWN)
        except SegmentMissing:
            continue
        except ForeignFile as error:
            found.append(error)
    return found


def refuse_foreign(instance: str) -> None:
    """Raise ForeignFile if the instance is another user's: its control segment or lock, or all that there is of it.

    A single other segment is not enough: a stranger could keep an owner from stopping what runs by adding one.
    """
    found = foreign_segments(instance)
    deciding = {segment_path(instance, part) for part in ("control", "lock")}
    first = next((error for error in found if error.path in deciding), None)
    if first is None and found and len(found) == len(list_segments(instance).get(instance, [])):
        first = found[0]
    if first is not None:
        raise first


def claim_segment(instance: str, part: str) -> int | None:
    """Hold the flock of a segment: its descriptor, to be kept open, or None if somebody else holds it.

    The flock is free the moment its holder dies. Raises SegmentMissing, also if the segment was removed meanwhile.
    """
    descriptor = open_segment(instance, part)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A sweep may have removed the segment between the opening and the flock.
        if os.path.samestat(os.fstat(descriptor), os.stat(segment_path(instance, part))):
            return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return None
    except FileNotFoundError:
        pass
    os.close(descriptor)
    raise SegmentMissing(segment_path(instance, part), "was removed while it was claimed")


def map_descriptor(descriptor: int, path: str, size: int, writable: bool = True) -> mmap.mmap:
    """Map exactly `size` bytes. Raises SegmentInvalid if the file has another size."""
    actual = os.fstat(descriptor).st_size
    if actual != size:
        raise SegmentInvalid(path, f"is {actual} bytes long and should be {size}")
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(descriptor, size, mmap.MAP_SHARED, access)


def list_segments(instance: str | None = None) -> dict[str, list[str]]:
    """The segments in the file system: instance name -> parts, sorted."""
    found: dict[str, list[str]] = {}
    for entry in sorted(os.listdir(FOLDER)):
        if not entry.startswith(PREFIX):
            continue
        name, _, part = entry[len(PREFIX) :].partition(".")
        if part and (instance is None or name == instance):
            found.setdefault(name, []).append(part)
    return found


def remove_instance(instance: str) -> list[str]:
    """Remove every segment of an instance, the control segment first, and return the parts removed.

    The caller holds the instance's lock: nothing here asks whether somebody still uses them. What another user put
    there under the instance's name stays.
    """
    parts = list_segments(instance).get(instance, [])
    parts.sort(key=lambda part: part != "control")
    removed = []
    for part in parts:
        if part == "lock":
            continue
        path = segment_path(instance, part)
        try:
            if not is_allowed(os.lstat(path).st_uid, OWN):
                continue
            os.unlink(path)
        except FileNotFoundError:
            continue
        removed.append(part)
    return removed
