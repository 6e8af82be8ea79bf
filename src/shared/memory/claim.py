"""Whose a lane is: the flock that says so, and the number that tells a former owner that it is one.

The flock is free the moment its holder dies. It can also be freed under a living owner, by somebody who closes all
descriptors of the process: a lane whose owner lives and has not given it back is not claimed. Where that cannot be seen
(the owner has process ids of its own, in a container) each claim raises the lane's `claims`, and an owner that finds
another number there writes no more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref
from typing import NoReturn, Protocol

from ..errors import TandemError
from . import layout
from .control import Control
from .processes import is_same_process, own_identity

WORD = 2**64 - 1

_ENDING = 0.2
"""Seconds that a process may still be seen after its end has freed its flocks."""


class Refusal:
    """Stands where a lock or shared memory was: whoever takes, reads or writes it gets a TandemError saying why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def _refuse(self, *_: object) -> NoReturn:
        raise TandemError(self._why)

    __enter__ = acquire = __getitem__ = __setitem__ = _refuse

    def __exit__(self, *_: object) -> None:
        """Never reached."""

    def release(self) -> None:
        """There is nothing to give back."""


_live: dict[tuple[int, int], int] = {}
"""This process's claims that were not given back: device and inode of the ring -> number."""


def is_owned(control: Control, index: int, descriptor: int) -> bool:
    """True if the lane whose ring's flock was just taken, by `descriptor`, has a living owner all the same."""
    owner, ticks = control.get(f"lane.{index}.owner"), control.get(f"lane.{index}.owner_ticks")
    if owner == os.getpid():
        file = os.fstat(descriptor)
        return (file.st_dev, file.st_ino) in _live
    deadline = time.monotonic() + _ENDING
    while is_same_process(owner, ticks):
        if time.monotonic() >= deadline:
            return True
        time.sleep(0.001)
    return False


class Claim:
    """One claim of lane `index`. `descriptor` holds the flock of the lane's ring, and is closed by `let_go`."""

    def __init__(self, control: Control, index: int, descriptor: int) -> None:
        self._control = control
        self.index = index
        self._descriptor = descriptor
        self._file = os.fstat(descriptor)
        pid, ticks = own_identity()
        for name, value in (("owner", pid), ("owner_ticks", ticks), ("ready", 0)):
            control.set(f"lane.{index}.{name}", value)
        self.word = layout.offset(f"lane.{index}.claims") >> 3
        self.number: int = (control.words[self.word] + 1) & WORD or 1
        control.words[self.word] = self.number
        self._identity = (self._file.st_dev, self._file.st_ino)
        _live[self._identity] = self.number

    def is_held(self) -> bool:
        """True if the flock is still this claim's, whatever the number says: nobody else can have the lane then."""
        try:
            if not self._is_open(self._descriptor):
                return False
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def let_go(self) -> None:
        """Give the lane back, unless it is another's already. Idempotent."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(ValueError):  # the control segment may be closed already
            if self._control.words[self.word] == self.number:
                self._control.set(f"lane.{self.index}.owner", 0)
                self._control.set(f"lane.{self.index}.ready", 0)
        self.forget()

    def forget(self) -> None:
        """Close the descriptor and nothing more: in a forked child the lane stays the parent's. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        with contextlib.suppress(OSError):
            if self._is_open(descriptor):
                os.close(descriptor)
        if _live.get(self._identity) == self.number:
            del _live[self._identity]

    def _is_open(self, descriptor: int) -> bool:
        """False if somebody closed the descriptor, and its number is another file's or another claim's by now."""
        if descriptor < 0 or _live.get(self._identity) != self.number:
            return False
        return os.path.samestat(os.fstat(descriptor), self._file)


class Forkable(Protocol):
    """What must know that its process has forked."""

    def disown(self) -> None:
        """Called in the child."""


_owners: weakref.WeakSet[Forkable] = weakref.WeakSet()
_registered = False


def disown_after_fork(owner: Forkable) -> None:
    """Have `owner.disown` called in every forked child, for as long as it lives."""
    global _registered
    if not _registered:
        os.register_at_fork(after_in_child=_disown)
        _registered = True
    _owners.add(owner)


def _disown() -> None:
    for owner in list(_owners):
        owner.disown()
    _owners.clear()
