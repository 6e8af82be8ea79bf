"""A lock between threads that no exception can leave taken, wherever it arrives.

A signal handler that raises, an asynchronous exception and a debugger can interrupt a thread between taking a lock and
the `try` that would give it back. Python offers no way to close that gap, so this lock notices afterwards: it knows the
call that took it, and a lock whose call has ended is free, whoever asks next.
"""

from __future__ import annotations

import inspect
import threading
import time
from sys import _getframe
from types import FrameType
from typing import Any

from ..errors import TandemError

_LOOK_AGAIN = 0.05
"""Seconds after which a thread that waits looks whether the call that holds the lock still runs."""
_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class OwnedLock:
    """Mutual exclusion between the threads of one process.

    As a context manager: `with lock as held`. `held` is False if the lock was not to be had within `timeout` seconds
    (negative: wait for ever), or at once if the calling thread holds it already further up (a callback, a signal
    handler): waiting could not help. Without a timeout the latter raises TandemError.

    `acquire` and `release` do the same for calls that cannot be a `with` block. The frame that takes the lock must be
    the one that gives it back. A generator or a coroutine that takes it keeps it until it gives it back.
    """

    __slots__ = ("_guard", "_holder", "_lock", "timeout")

    def __init__(self, timeout: float = -1.0) -> None:
        self.timeout = timeout
        # Re-entrant for one reason: it knows, in the same instant as it is taken, by which thread.
        self._lock: Any = threading.RLock()
        self._holder: FrameType | None = None
        self._guard = threading.Lock()

    def __enter__(self) -> bool:
        if self.acquire(self.timeout, 2):
            return True
        if self.timeout < 0:
            raise TandemError(
                "called from inside a call that is not over: a gate, a reward calculator, encode or a signal handler"
                " must not call the engine that called it"
            )
        return False

    def __exit__(self, *_: object) -> None:
        frame = _getframe(1)
        if self._holder is frame:
            self._lock.release()
            if self._holder is frame:
                self._holder = None

    def acquire(self, timeout: float = -1.0, depth: int = 1) -> bool:
        """Take the lock; False if it was not to be had. The caller `depth` levels up is the one that will `release`."""
        frame = _getframe(depth)
        lock = self._lock
        try:
            if not lock._is_owned() and lock.acquire(False):
                self._holder = frame
                # Not so if a signal handler came between these two lines and used the lock.
                if lock._is_owned() and self._lock is lock:
                    return True
            return self._wait(frame, timeout)
        except BaseException:
            if self._lock._is_owned() and (self._holder is frame or not _is_running(self._holder)):
                self.release()
            raise

    def release(self) -> None:
        """Give the lock back. Nothing happens if this thread does not hold it."""
        lock, holder = self._lock, self._holder
        if lock._is_owned():
            lock.release()
            if self._holder is holder:
                self._holder = None

    def _wait(self, frame: FrameType, timeout: float) -> bool:
        deadline = time.monotonic() + timeout if timeout >= 0 else float("inf")
        while True:
            lock = self._lock
            if lock._is_owned():
                if _is_running(self._holder):
                    return False
                # Left by an earlier call of this thread. Under the guard, as another thread may see the same.
                with self._guard:
                    if self._lock is lock:
                        self._holder = frame
                        return True
                continue
            left = deadline - time.monotonic()
            if self._left_behind(lock):
                continue
            if lock.acquire(timeout=min(left, _LOOK_AGAIN)) if left > 0 else lock.acquire(False):
                self._holder = frame
                if lock._is_owned() and self._lock is lock:
                    return True
                if lock._is_owned():
                    lock.release()
            elif left <= 0:
                return False

    def _left_behind(self, lock: Any) -> bool:
        """True if the call of another thread that took `lock` has ended with it: there is a new one then."""
        holder = self._holder
        if holder is None or _is_running(holder):
            return False
        fresh = threading.RLock()
        with self._guard:
            # No other thread runs between the comparison and the exchange, which contain no call. One that takes `lock`
            # (its giving back was interrupted before the last line) says so first and looks for `fresh` after.
            if self._holder is holder and self._lock is lock:
                self._holder, self._lock = None, fresh
        return True


def _is_running(frame: FrameType | None) -> bool:
    """True if the call that `frame` stands for is not over, on whatever thread's stack."""
    if frame is None:
        return False
    if frame.f_code.co_flags & _SUSPENDABLE:
        return True
    try:
        frame.clear()
    except RuntimeError:
        return True
    return False
