"""Who owns a file, and who may read what is written: what another user made is not trusted, followed or overwritten.

Standard library only. /dev/shm is writable to everybody, so any name in it may be a stranger's: a file, or a link to a
file of ours. A file is opened without following a link, and its owner is asked of the open descriptor.
"""

from __future__ import annotations

import errno
import os

from ..errors import ForeignFile

ANYONE, TRUSTED, OWN = "anyone", "trusted", "own"
"""Whose a file may be: to look at it; to run what it says (the user's own or root's, as root can do anything anyway);
to start, stop or remove what it belongs to (the user's own: root is no exception)."""

_KIND, _REGULAR = 0o170000, 0o100000

_before = -1
_mask = -1


def owner_name(uid: int) -> str:
    """The user's name, or the number if it has none here."""
    import pwd  # here: only messages need it

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"


def is_allowed(uid: int, whose: str) -> bool:
    """True if a file of user `uid` may be used for `whose` (ANYONE, TRUSTED or OWN)."""
    return whose == ANYONE or uid == os.geteuid() or (whose == TRUSTED and uid == 0)


def check_facts(path: str, facts: os.stat_result, whose: str) -> None:
    """Raise ForeignFile unless `facts` are those of a regular file with one name that belongs to `whose`."""
    if not is_allowed(facts.st_uid, whose):
        me = owner_name(os.geteuid())
        raise ForeignFile(path, facts.st_uid, f"belongs to user {owner_name(facts.st_uid)}, and you are {me}")
    if facts.st_mode & _KIND != _REGULAR or facts.st_nlink > 1:
        raise ForeignFile(
            path, facts.st_uid, f"of user {owner_name(facts.st_uid)} is a link or no regular file; remove it by hand"
        )


def open_file(path: str, flags: int, whose: str = OWN, mode: int = 0o666) -> int:
    """Open a file without following a link or waiting for a pipe; its descriptor, to be closed by the caller.

    A file that is made here has `mode` less what `be_private` takes away. Raises ForeignFile, or what `os.open` raises.
    """
    flags |= os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC | (0 if flags & os.O_CREAT else os.O_NONBLOCK)
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO):
            facts = os.lstat(path)
            check_facts(path, facts, whose)
            if facts.st_uid != os.geteuid():
                text = f"belongs to user {owner_name(facts.st_uid)} and has mode {facts.st_mode & 0o777:04o}"
                raise ForeignFile(path, facts.st_uid, f"{text}: it is not open to you") from None
        raise
    try:
        check_facts(path, os.fstat(descriptor), whose)
        if _mask >= 0 and flags & os.O_CREAT:
            os.fchmod(descriptor, mode & ~_mask)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def be_private(mode: str | int) -> None:
    """Make what this process writes from now on as private as segments of `mode` are, whatever the umask was.

    Files get 0600, or 0640 or 0644 where others may read the segments, folders 0700, 0750 or 0755. Nobody but the owner
    may ever write to a file. For processes of Tandem's own: a library leaves the umask of its host alone.
    """
    global _before, _mask
    readers = (int(mode, 8) if isinstance(mode, str) else mode) & 0o044
    _mask = 0o777 & ~(0o700 | readers | readers >> 2)
    before = os.umask(_mask)
    _before = before if _before < 0 else _before


def users_umask() -> int:
    """The umask that this process was started with, for the user's own programs; -1 if `be_private` left it alone."""
    return _before


def own_folder(path: str | os.PathLike[str], make: bool = True) -> None:
    """Make a folder of the instance's own, or find that it is this user's and close it to all that must not read it.

    Raises ForeignFile naming the folder or the entry of it that belongs to another user, or OSError.
    """
    path = os.fspath(path)
    if make:
        os.makedirs(path, exist_ok=True)
    elif not os.path.lexists(path):
        return
    for facts in (os.lstat(path), os.stat(path)):
        _check_owner(path, facts)
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", path)
    if _mask >= 0:
        os.chmod(path, 0o777 & ~_mask)
    with os.scandir(path) as entries:
        for entry in entries:
            _check_owner(entry.path, entry.stat(follow_symlinks=False))


def _check_owner(path: str, facts: os.stat_result) -> None:
    if not is_allowed(facts.st_uid, OWN):
        me = owner_name(os.geteuid())
        raise ForeignFile(
            path, facts.st_uid, f"belongs to user {owner_name(facts.st_uid)}, and you are {me}; set another data_dir"
        )
