"""What a reading of an instance says of the lanes and of their owners. Standard library only, as snapshot.py."""

from __future__ import annotations

from ..memory import layout
from ..memory.control import Control
from ..memory.processes import is_same_process
from .process_reading import ProcessReading, seconds_since

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
        """Decisions in each bucket of durations (memory.latency has the bounds)."""
        return [self.values[f"latency_{bucket}"] for bucket in range(layout.LATENCY_BUCKETS)]


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
    return reading
