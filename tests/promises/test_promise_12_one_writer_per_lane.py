"""A lane has one writer; a second one is refused at once, and a dead one's lane is free at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from proof import figure, wait_for
from tandem.shared.errors import LaneBusy
from tandem.shared.experiences.lane import Lane
from tandem.shared.memory.claim import Claim

MakeChannel = Callable[..., Any]


def refused(made: Any, claim: Callable[[], Any]) -> tuple[int, ...] | None:
    """The holders that the refusal names, or None if a second writer was let in."""
    try:
        claim()
    except LaneBusy as error:
        return error.holders
    return None


def test_promise_12_one_writer_per_lane(channel: MakeChannel, nursery: Any) -> None:
    """The refusal names the holder and does not wait for it; the lane is free the moment the holder is dead."""
    made = channel(lanes=1)
    holder = nursery.start("hold_lane", name=made.name).ready()
    started = time.perf_counter()
    assert refused(made, made.claim) == (holder.pid,)
    figure(12, f"refused in {(time.perf_counter() - started) * 1e3:.1f} ms, naming the holder")
    os.kill(holder.pid, 19)
    assert refused(made, made.claim) == (holder.pid,), "a stopped holder is still the holder"
    holder.kill()
    assert wait_for(lambda: refused(made, made.claim) is None, "the dead holder's lane is free", 5)


def test_a_lock_that_others_can_drop_lets_a_second_writer_in(channel: MakeChannel, nursery: Any) -> None:
    """The same check finds a claim that asks for no flock."""

    class Heedless(Lane):
        @classmethod
        def claim(cls, control: Any, records: Any, lock_timeout: float = 5.0) -> Lane:
            return cls(control, records, Claim(control, 0, os.open("/dev/null", os.O_RDONLY)), lock_timeout)

    made = channel(lanes=1)
    nursery.start("hold_lane", name=made.name).ready()
    assert refused(made, lambda: made.claim(Heedless)) is None
    with pytest.raises(LaneBusy):
        made.claim()


def test_promise_12_closing_the_file_elsewhere_keeps_the_lock(channel: MakeChannel, nursery: Any) -> None:
    """Readers of a ring open and close its file all the time; the writer keeps its lane (a POSIX lock would go)."""
    made = channel(lanes=1)
    lane = made.claim()
    path = lane._ring.path if hasattr(lane, "_ring") else None
    with open(path or "/dev/null", "rb") as file:
        file.read(1)
    child = nursery.start("hold_lane", name=made.name)
    assert child.wait() == 1
    assert "LaneBusy" in child.stderr()
