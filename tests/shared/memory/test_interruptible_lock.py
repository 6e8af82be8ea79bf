"""An exception that arrives anywhere leaves no lock taken, and never lets two threads in."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from proof import Planted, at_line, raise_planted, wait_for
from tandem.shared.errors import TandemError
from tandem.shared.memory.interruptible_lock import OwnedLock


class Limit(Exception):
    """What a time limit raises."""


def use(lock: OwnedLock) -> None:
    with lock as held:
        assert held


def use_by_hand(lock: OwnedLock) -> None:
    """As a lane does: taken by one call, given back by another."""
    if not lock.acquire():
        raise AssertionError("not to be had")
    try:
        time.monotonic()
    finally:
        lock.release()


def elsewhere(call: Callable[[], Any]) -> Any:
    """What `call` returns in a thread of its own, which must end."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(20)
    assert found, "the thread did not get on"
    return found[0]


def is_free(lock: OwnedLock) -> bool:
    """True if the lock can be taken at once."""
    free = lock.acquire(0.0)
    lock.release()
    return free


@pytest.mark.parametrize("call", [use, use_by_hand])
@pytest.mark.parametrize("asked_by", ["the same thread", "another thread"])
def test_an_exception_at_any_line_leaves_the_lock_free(call: Callable[[OwnedLock], None], asked_by: str) -> None:
    """Whichever line of taking, holding or giving back is interrupted: whoever asks next gets the lock at once."""
    lock = OwnedLock()
    line = 0
    reached = True
    while reached:
        line += 1
        with contextlib.suppress(Planted):
            reached = at_line(lambda: call(lock), line, raise_planted)
        assert is_free(lock) if asked_by == "the same thread" else elsewhere(lambda: is_free(lock)), line
        use(lock)
        assert elsewhere(lambda: is_free(lock)), line
    assert line > 8


def refused(lock: OwnedLock) -> None:
    with lock as held:
        assert not held


def leave_taken(lock: OwnedLock) -> None:
    """A call that ends without giving back: as if an exception had come before its `try`."""
    assert lock.acquire()


@pytest.mark.parametrize("waiters", [1, 4])
def test_a_lock_left_by_a_dead_thread_goes_to_those_who_wait(waiters: int) -> None:
    """Its call is over: nobody waits for it, and only one gets in at a time."""
    lock, inside, most = OwnedLock(), [0], [0]
    thread = threading.Thread(target=leave_taken, args=(lock,))
    thread.start()
    thread.join()

    def work() -> None:
        for _ in range(50):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(waiters)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
        assert not each.is_alive()
    assert most == [1]


def test_a_call_from_within_is_refused_not_waited_for() -> None:
    """A thread that holds the lock further up cannot get it again: an error, or False where there is a timeout."""
    lock = OwnedLock()
    with lock, pytest.raises(TandemError, match="inside a call"):
        use(lock)
    patient = OwnedLock(timeout=600.0)
    with patient as held:
        assert held
        refused(patient)
        assert not elsewhere(lambda: is_free(patient)), "still held"
    assert is_free(patient)


def test_another_threads_call_is_waited_for() -> None:
    """A call that still runs keeps the lock, however long it takes: False after the timeout, True once it ends."""
    lock, taken, ending = OwnedLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            ending.wait(20)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert taken.wait(20)
    assert not lock.acquire(0.0)
    assert not lock.acquire(0.12)
    ending.set()
    assert lock.acquire(20)
    lock.release()
    thread.join()


def test_a_suspended_generator_that_holds_the_lock_is_left_alone() -> None:
    """Nobody knows whether it goes on: it keeps the lock and is not closed."""
    lock = OwnedLock()

    def hold() -> Iterator[None]:
        with lock:
            yield

    holding = hold()
    next(holding)
    assert not elsewhere(lambda: is_free(lock))
    assert next(holding, "ended") == "ended"
    assert is_free(lock)


def test_threads_that_are_interrupted_all_the_time_exclude_each_other() -> None:
    """Asynchronous exceptions in four threads: never two inside at once, and nobody is locked out."""
    lock, inside, faults, rounds = OwnedLock(), [0], [0], [0] * 4
    over = threading.Event()

    def work(number: int) -> None:
        while not over.is_set():
            with lock:
                before = inside[0] = inside[0] + 1
                time.sleep(0)
                if inside[0] != before:
                    faults[0] += 1
            rounds[number] += 1

    def keep_working(number: int) -> None:
        while not over.is_set():
            try:
                try:
                    work(number)
                except Limit:
                    continue
            except Limit:
                continue

    def all_get_on(by: int) -> None:
        """Every thread takes the lock so many times more."""
        wanted = [count + by for count in rounds]
        wait_for(lambda: all(count >= want for count, want in zip(rounds, wanted, strict=True)), f"all {by} rounds on")

    threads = [threading.Thread(target=keep_working, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    all_get_on(1)
    for number in range(300):
        identity = ctypes.c_ulong(threads[number % 4].ident or 0)
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(Limit)) == 1
        time.sleep(0.0003)
    all_get_on(20)
    over.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert faults == [0]
    assert is_free(lock)


def test_a_signal_handler_that_raises_never_locks_anybody_out() -> None:
    """A time limit at random moments of a loop that takes the lock: another thread gets it at once."""
    lock = OwnedLock()

    def expire(*_: Any) -> None:
        raise Limit

    before = signal.signal(signal.SIGALRM, expire)
    try:
        hits = 0
        for number in range(600):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + number % 40 * 2e-6)
                for _ in range(200):
                    use_by_hand(lock)
                    use(lock)
            except Limit:
                hits += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if number % 20 == 0:
                assert elsewhere(lambda: is_free(lock))
        assert hits > 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert elsewhere(lambda: is_free(lock))
