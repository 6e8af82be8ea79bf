"""What a reading of an instance says of the lanes and of their owners. Standard library only, as snapshot.py."""

from __future__ import annotations

import os

from ..memory import layout
from ..memory.control import Control
from ..memory.processes import is_same_process, uptime_of
from .process_reading import ProcessReading, seconds_since

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_REGULAR = 10
"""Turns after which a server of the user's own is known to report its progress regularly, and is held to it."""


class LaneReading:
    """One lane that was ever claimed: its counters by name in `values`, and its owner as a process."""

    __slots__ = ("capacity", "index", "owner", "pending_capacity", "values")

    def __init__(self, control: Control, index: int) -> None:
        self.index = index
        self.values: dict[str, Any] = control.lane(index)
        self.capacity: int = control.get("capacity")
        self.pending_capacity: int = control.get("pending_capacity")
        self.owner = _owner(index, self.values)

    @property
    def size(self) -> int:
        """Completed experiences in its ring."""
        return int(max(0, min(self.values["head"] - self.values["floor"], self.capacity)))

    @property
    def overwritten(self) -> int:
        """Experiences that newer ones took the place of, those forgotten by a reset among them."""
        return int(max(0, self.values["head"] - self.capacity))

    @property
    def cleared(self) -> int:
        """Experiences that a reset forgot before they were overwritten."""
        floor = self.values["floor"]
        return int(min(floor, max(0, floor - self.overwritten)))

    @property
    def latency_counts(self) -> list[int]:
        """Decisions in each bucket of durations (memory.durations.DECISION)."""
        return [self.values[f"latency_{bucket}"] for bucket in range(layout.LATENCY_BUCKETS)]

    @property
    def freshness_counts(self) -> list[int]:
        """Rewards in each bucket of the time until weights trained after them decided (memory.durations.FRESHNESS)."""
        return [self.values[f"freshness_{bucket}"] for bucket in range(layout.FRESHNESS_BUCKETS)]


def read_lanes(control: Control) -> list[LaneReading]:
    """The lanes that a server process ever claimed."""
    get = control.get
    return [LaneReading(control, index) for index in range(get("lanes")) if get(f"lane.{index}.claims")]


def _owner(index: int, values: dict[str, Any]) -> ProcessReading:
    reading = ProcessReading(f"server {index}")
    owner = values["owner"]
    reading.turned_s = seconds_since(values["progress_ns"])
    if is_same_process(owner, values["owner_ticks"]):
        reading.state = "running" if values["ready"] == owner else "starting"
        reading.pid, reading.progress_age_s = owner, reading.turned_s
        reading.uptime_s = uptime_of(values["owner_ticks"])
    return reading


def lanes_of(control: Control, server: int) -> list[int]:
    """Indices of the lanes that a supervised server serves from: `server` is the process id that its child has.

    A server owns a lane for each of its processes, all of them in the session that the child leads. A lane counts while
    its owner lives and has said that it serves. A server that attached by itself is of another session.
    """
    get, found = control.get, []
    for index in range(get("lanes")):
        owner = get(f"lane.{index}.owner")
        if not owner or owner != get(f"lane.{index}.ready") or _session(owner) != server:
            continue
        # A worker that died may have left its number to another process of the session.
        if is_same_process(owner, get(f"lane.{index}.owner_ticks")):
            found.append(index)
    return found


def oldest_turn(control: Control, lanes: list[int]) -> int | None:
    """The oldest last turn of those owners that report turns regularly, on the monotonic clock in nanoseconds.

    None if none of them does. One process of a server that hangs is enough for the server to count as hung.
    """
    regular = [index for index in lanes if control.get(f"lane.{index}.progress") >= _REGULAR]
    return min([control.get(f"lane.{index}.progress_ns") for index in regular], default=None)


def newest_turn(control: Control, lanes: list[int]) -> int:
    """The newest last turn of their owners, on the monotonic clock in nanoseconds; 0: none ever turned."""
    return max([control.get(f"lane.{index}.progress_ns") for index in lanes], default=0)


def _session(pid: int) -> int:
    """The leader of a process's session; 0 if the process is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
