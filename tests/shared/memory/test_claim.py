"""Who may write into a lane, and what a former owner gets instead."""

from __future__ import annotations

import gc
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from channel_kit import add, balance, key_of, wait_for_reward
from tandem.shared.errors import LaneBusy, TandemError
from tandem.shared.experiences.lane import Lane

MakeChannel = Callable[..., Any]

WRITES: dict[str, Callable[[Lane], Any]] = {
    "add": lambda lane: add(lane, 1),
    "hold": lambda lane: lane.hold().__enter__(),
    "ticket": lambda lane: lane._writer.next_ticket(),
    "tickets": lambda lane: lane._writer.next_tickets(3),
    "append": lambda lane: lane._writer.append(bytes(lane.records.record.itemsize - 16)),
    "defer": lambda lane: lane._writer.defer(1, b"", key_of("n"), b""),
    "reward": lambda lane: lane._writer.reward(key_of("a"), 1.0),
    "complete": lambda lane: lane._writer.complete(key_of("a"), 1.0),
    "drop": lambda lane: lane._writer.drop(key_of("a")),
    "expire": lambda lane: lane._writer.expire(2**62),
    "clear": lambda lane: lane._writer.clear(),
    "count": lambda lane: lane.count("errors"),
    "count_decision": lambda lane: lane.counters.count_decision(1, 1, 1),
    "beat": lambda lane: lane.beat(),
}


def lost(made: Any) -> Lane:
    """A lane whose flock was freed under it by somebody who closed all descriptors."""
    lane: Lane = made.claim()
    wait_for_reward(lane, "a", 1)
    os.close(lane._claim._descriptor)
    return lane


def hide(made: Any) -> None:
    """As if the lane's owner lived where its process id means nothing."""
    made.control.set("lane.0.owner", 2**22 + 1)


def test_a_lane_whose_owner_lives_is_not_claimed(channel: MakeChannel) -> None:
    """The flock alone does not say so: the owner goes on writing, undisturbed."""
    made = channel()
    lane = lost(made)
    with pytest.raises(LaneBusy, match=f"process {os.getpid()}"):
        made.claim()
    assert add(lane, 2) == 1
    lane.release()
    assert made.claim().pending.keys() == [key_of("a")]


def snapshot(made: Any) -> tuple[Any, ...]:
    with (
        open(f"/dev/shm/tandem.{made.name}.ring0", "rb") as ring,
        open(f"/dev/shm/tandem.{made.name}.pending0", "rb") as p,
    ):
        return ring.read(), p.read(), made.control.lane(0)


@pytest.mark.parametrize("what", WRITES)
def test_a_lane_that_was_given_back_refuses(channel: MakeChannel, what: str) -> None:
    """Every call that would write raises, naming the remedy, and nothing changes."""
    made = channel()
    lane = made.claim()
    wait_for_reward(lane, "a", 1)
    lane.release()
    owner = made.claim()
    before = snapshot(made)
    with pytest.raises(TandemError, match=r"given back.*attach again"):
        WRITES[what](lane)
    lane.release()
    assert snapshot(made) == before
    assert add(owner, 2) == 1


@pytest.mark.parametrize("what", ["add", "hold", "beat"])
def test_a_lane_that_was_taken_over_refuses(channel: MakeChannel, what: str) -> None:
    """An owner that lost its flock finds out at its next call, and names the process that has the lane."""
    made = channel()
    lane = lost(made)
    hide(made)
    owner = made.claim()
    assert owner.index == lane.index
    before = snapshot(made)
    with pytest.raises(TandemError, match=f"taken over by process {os.getpid()}"):
        WRITES[what](lane)
    with pytest.raises(TandemError):
        add(lane, 3)
    lane.release()
    assert snapshot(made) == before
    with pytest.raises(LaneBusy):
        made.claim()
    assert add(owner, 2) == 1


def test_a_damaged_number_does_not_cost_the_lane(channel: MakeChannel) -> None:
    """Who holds the flock is the owner, whatever the number says."""
    made = channel()
    lane = made.claim()
    for value in (0, 12345, 2**64 - 1):
        made.control.set("lane.0.claims", value)
        assert add(lane, 1)
    assert lane.get("damaged") == 3
    lane.release()
    made.control.set("lane.0.claims", 2**64 - 1)
    assert add(made.claim(), 2) == 4


def test_a_lane_that_nobody_refers_to_is_free(channel: MakeChannel) -> None:
    """A lane goes back when it is collected, and nobody has to wait for the collector."""
    made = channel()

    class Holder:
        def __init__(self) -> None:
            self.lane, self.itself = made.claim(), self

    gc.disable()
    try:
        for _ in range(3):
            Holder()
    finally:
        gc.enable()
    assert made.control.get("lane.0.claims") == 3
    lane = made.claim()
    with pytest.raises(LaneBusy):
        made.claim()
    lane.release()


def test_a_forked_child_writes_nothing(channel: MakeChannel) -> None:
    """Its copy of the lane refuses; the parent's goes on, also when the child's copy is collected."""
    made = channel()
    lane = made.claim()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            add(lane, 1)
        except TandemError as error:
            status = 0 if "belongs to the parent" in str(error) else 2
        finally:
            lane.release()
            del lane
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert made.control.get("lane.0.owner") == os.getpid()
    with pytest.raises(LaneBusy):
        made.claim()
    assert add(lane, 1) == 1


def test_giving_back_waits_for_the_thread_inside(channel: MakeChannel) -> None:
    """What another thread has begun is finished before the lane is another's."""
    made = channel()
    lane = made.claim()
    inside, go_on = threading.Event(), threading.Event()

    def work() -> None:
        with lane.hold():
            ticket = lane._writer.next_ticket()
            inside.set()
            go_on.wait(30)
            lane.count("rejected")
            assert ticket

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(30)
    closing = threading.Thread(target=lane.release)
    closing.start()
    with pytest.raises(LaneBusy):
        made.claim()
    go_on.set()
    closing.join(30)
    thread.join(30)
    assert made.claim().get("lost") == 0
    assert balance(made.control) == 0
