"""Every store is a crash point: run a call, stop it before each of its lines in turn, look what is left behind.

The calls are those that a server makes while it holds the lane.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from channel_kit import (
    Channel,
    attach_channel,
    balance,
    batch_of,
    fill,
    is_whole,
    key_of,
    payload,
    value_of,
    wait_for_reward,
    wrong_rows,
)
from mutants import LANES, PUBLISHERS
from proof import Planted, at_line, raise_planted
from tandem.shared.weights.subscriber import Look

BATCH = 5
_lanes: dict[str, Any] = {}


def crash_at_every_line(name: str, what: str, writer: str) -> dict[str, Any]:
    """Kill a forked process before each line of one call in turn, and check what it leaves behind."""
    from children import fresh

    made = attach_channel(name)
    bad: list[Any] = []
    for line in range(1, 3000):
        pid = os.fork()
        if pid == 0:
            fresh()
            at_line(CALLS[what](name, writer), line, lambda: os.kill(os.getpid(), signal.SIGKILL))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        fault = CHECKS[what](made, limit(what), True)
        if fault:
            bad.append([line, fault])
        if not os.WIFSIGNALED(status):
            return {"lines": line - 1, "bad": bad, "status": status}
    raise AssertionError("no end")


def raise_at_every_line(name: str, what: str, writer: str) -> dict[str, Any]:
    """The same with an exception in a process that lives on: what is left, and whether the next call mends it."""
    made = attach_channel(name)
    bad: list[Any] = []
    for line in range(1, 3000):
        reached = True
        with contextlib.suppress(Planted):
            reached = at_line(CALLS[what](name, writer), line, raise_planted)
        faults = [CHECKS[what](made, limit(what), False)]
        CALLS[what](name, writer)()
        faults.append(CHECKS[what](made, limit(what), False))
        if any(faults):
            bad.append([line, *faults])
        if not reached:
            break
    if name in _lanes:
        _lanes.pop(name).release()
        fault = CHECKS[what](made, 10**6, True)
        if fault:
            bad.append(["at the end", fault])
    return {"lines": line - 1, "bad": bad}


def limit(what: str) -> int:
    """Records that one crash may cost: the one in flight, or the batch."""
    return BATCH if what == "append_many" else 1


def publish_call(name: str, writer: str, steps: int = 1) -> Callable[[], Any]:
    made = attach_channel(name)
    end = made.publisher(PUBLISHERS[writer])
    version = end.version + steps
    room = fill(made.room(), version)
    return lambda: end.publish(room, version)


def check_weights(made: Channel, allowed: int, dead: bool) -> str:
    """What is wrong with the announced version, if anything."""
    reader, room = made.subscriber(verify=True), made.room()
    if reader.refresh(room) is not Look.TAKEN:
        return "the announced version cannot be read"
    if not is_whole(room, reader.version):
        return "the announced version is torn"
    return ""


def lane_of(name: str, writer: str) -> Any:
    if name not in _lanes:
        _lanes[name] = attach_channel(name).claim(LANES[writer])
    return _lanes[name]


def append_call(name: str, writer: str) -> Callable[[], Any]:
    end = lane_of(name, writer)
    stamp = end.get("tickets") + 1
    return lambda: end._writer.append(payload(end.records, end._writer.next_ticket(), stamp, value_of(stamp)))


def append_many_call(name: str, writer: str) -> Callable[[], Any]:
    end = lane_of(name, writer)
    rows = batch_of(end, end.get("tickets") + 1, BATCH)
    return lambda: end._writer.append_many(rows)


def complete_call(name: str, writer: str) -> Callable[[], Any]:
    end = lane_of(name, writer)
    for key in end.pending.keys():  # noqa: SIM118
        end._writer.drop(key)
    stamp = end.get("tickets") + 1
    wait_for_reward(end, "other", stamp)
    wait_for_reward(end, "a", stamp + 1)
    return lambda: end._writer.complete(key_of("a"), value_of(stamp + 1))


def defer_call(name: str, writer: str) -> Callable[[], Any]:
    end = lane_of(name, writer)
    stamp = end.get("tickets") + 1
    wait_for_reward(end, "a", stamp)

    def call() -> None:
        ticket = end._writer.next_ticket()
        end._writer.defer(ticket, payload(end.records, ticket, stamp + 1), key_of("a"), b"")

    return call


def check_ring(made: Channel, allowed: int, dead: bool) -> str:
    """What is wrong with lane 0 after its owner died (or, alive, after an exception), if anything."""
    if dead:
        before = made.control.get("lane.0.lost")
        end = made.claim()
        lost = end.get("lost") - before
        waiting = [end.pending.entry(key) for key in end.pending.keys()]  # noqa: SIM118
        end.release()
        if lost > allowed:
            return f"{lost} lost"
        if balance(made.control):
            return f"the counters are off by {balance(made.control)}"
        if wrong_rows(np.array([entry.item() for entry in waiting], made.records.pending)):
            return "a pending decision is torn"
        done = made.reader().recent(10**9)["ticket"].tolist()
        if len(set(done)) != len(done) or set(done) & {int(entry["ticket"]) for entry in waiting}:
            return "a decision counts twice"
    reader = made.reader()
    rows = reader.recent(10**9)
    if wrong_rows(rows):
        return "a torn record was accepted"
    if reader.size() - len(rows) > allowed:
        return f"{reader.size() - len(rows)} announced records cannot be read"
    return ""


CALLS: dict[str, Callable[[str, str], Callable[[], Any]]] = {
    "publish": publish_call,
    "publish 4": partial(publish_call, steps=4),
    "publish 8": partial(publish_call, steps=8),
    "append": append_call,
    "append_many": append_many_call,
    "complete": complete_call,
    "defer": defer_call,
}
CHECKS: dict[str, Callable[[Channel, int, bool], str]] = {
    "publish": check_weights,
    "publish 4": check_weights,
    "publish 8": check_weights,
    "append": check_ring,
    "append_many": check_ring,
    "complete": check_ring,
    "defer": check_ring,
}
