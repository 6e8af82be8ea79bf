"""One reading of an instance, from which every surface shows its numbers: `ctl`, REST, the dashboard, Prometheus.

All that is derived from shared memory (what is in the buffer, which lanes count, whether a process lives) is derived
here, so that two surfaces that are asked at the same moment say the same. Standard library only, and without `typing`
or `dataclasses`: an operator's command reads an instance before those would be imported.
"""

from __future__ import annotations

import time

from ..memory import layout
from ..memory.control import Control
from ..memory.processes import is_same_process, start_ticks
from .learning_reasons import learning_notices, learning_reasons

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

METRICS = tuple(name for name in layout.FIELDS if name.startswith("metrics."))

_NUMBERS = (
    "epoch",
    "generation",
    "rollbacks",
    "restored_version",
    "published_at",
    "trainer.unsaved",
    "trainer.refused_in_row",
    "trainer.failed_in_row",
    "trainer.still_in_row",
    "trainer.abandoned",
)

_ACTIVE = ("starting", "running", "stopping")
"""States in which a process is there, if it lives."""
_RECENT = 10.0
"""Seconds within which a trainer without a process id must have turned to count as running."""


def seconds_since(monotonic_ns: int) -> float | None:
    """Seconds since a moment on the monotonic clock; None for 0 (never)."""
    return max(0.0, (time.monotonic_ns() - monotonic_ns) / 1e9) if monotonic_ns else None


class ProcessReading:
    """One process: `state` is one of layout.STATES, as the supervisor saw it unless the process has died since.

    `pid` is None unless the process lives. Times are seconds, None where nothing is known: `uptime_s`, `turned_s` since
    the last turn of its main loop, `progress_age_s` the same while it lives. `is_supervised`: a supervisor has it.
    """

    __slots__ = ("is_supervised", "name", "pid", "progress_age_s", "restarts", "state", "turned_s", "uptime_s")

    def __init__(self, name: str, is_supervised: bool = False, restarts: int = 0) -> None:
        self.name = name
        self.state = "stopped"
        self.pid: int | None = None
        self.uptime_s: float | None = None
        self.restarts = restarts
        self.turned_s: float | None = None
        self.progress_age_s: float | None = None
        self.is_supervised = is_supervised

    def is_progressing(self, limit: float) -> bool:
        """True if it lives and its main loop turned within the last `limit` seconds."""
        return self.progress_age_s is not None and self.progress_age_s < limit


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


class Snapshot:
    """What an instance is at one moment. Each number is whole; all are read within a millisecond.

    `lanes` are those that a server process ever claimed. `metrics` are the trainer's, by their names without
    `metrics.`, `numbers` other fields by theirs. `reasons` say by name why nobody learns, `notices` what may be meant
    and may be a fault.
    """

    def __init__(self, control: Control) -> None:
        get = control.get
        self.instance = control.instance
        self._control = control
        self.version: int = get("version")
        self.model_age_s = seconds_since(get("published_ns"))
        self.is_paused = bool(get("command.pause"))
        self.pending_capacity: int = get("pending_capacity")
        self.metrics: dict[str, Any] = {name[8:]: get(name) for name in METRICS}
        self.lanes = read_lanes(control)
        self.capacity: int = get("capacity")
        self.trainer = read_trainer(control)
        self.server = read_server(control, self.lanes)
        self.supervisor = _process(control, "supervisor", get("supervisor.progress_ns"))
        self.reasons = learning_reasons(control)
        self.notices = learning_notices(control)
        self.numbers: dict[str, Any] = {name: get(name) for name in _NUMBERS}

    @property
    def schema(self) -> dict[str, Any]:
        """What the instance was created with; it never changes, and is read when it is asked for."""
        return self._control.schema

    def total(self, name: str) -> Any:
        """Sum of a counter over the lanes."""
        return sum(lane.values[name] for lane in self.lanes)

    @property
    def size(self) -> int:
        """Completed experiences in all rings."""
        return sum(lane.size for lane in self.lanes)

    @property
    def total_capacity(self) -> int:
        """Experiences that the rings of the lanes in use hold; of one ring before any was claimed."""
        return self.capacity * max(1, len(self.lanes))

    @property
    def total_pending_capacity(self) -> int:
        """Decisions that may wait for their reward in the lanes in use."""
        return self.pending_capacity * max(1, len(self.lanes))

    @property
    def latency_counts(self) -> list[int]:
        """Decisions of all lanes in each bucket of durations."""
        lanes = [lane.latency_counts for lane in self.lanes]
        return [sum(column) for column in zip(*lanes)] if lanes else [0] * layout.LATENCY_BUCKETS  # noqa: B905

    @property
    def servers(self) -> list[LaneReading]:
        """The lanes whose owner lives."""
        return [lane for lane in self.lanes if lane.owner.pid is not None]


def read_lanes(control: Control) -> list[LaneReading]:
    """The lanes that a server process ever claimed."""
    get = control.get
    return [LaneReading(control, index) for index in range(get("lanes")) if get(f"lane.{index}.claims")]


def read_trainer(control: Control) -> ProcessReading:
    """The trainer, whoever started it: a process that the supervisor watches, one that said who it is, or a thread.

    Of a thread nothing is known but its turns.
    """
    reading = _process(control, "process.trainer", control.get("trainer.progress_ns"))
    ready = control.get("trainer.ready")
    if reading.is_supervised or (ready and not start_ticks(ready)):
        return reading
    is_turning = reading.turned_s is not None and reading.turned_s < _RECENT
    if ready or is_turning:
        reading.state, reading.pid, reading.progress_age_s = "running", ready or None, reading.turned_s
    return reading


def _process(control: Control, prefix: str, progress_ns: int) -> ProcessReading:
    """A process that the segment names, by its process id and start time: another one of that number is not it."""
    get, name = control.get, prefix.rpartition(".")[2]
    pid = get(f"{prefix}.pid")
    lives = is_same_process(pid, get(f"{prefix}.start_ticks"))
    if name == "supervisor":
        reading = ProcessReading(name, True)
        reading.state = "running" if lives else "stopped"
    else:
        state, started = get(f"{prefix}.state"), get(f"{prefix}.started_ns")
        reading = ProcessReading(name, bool(started or state), get(f"{prefix}.restarts"))
        reading.state = layout.STATES[min(state, len(layout.STATES) - 1)]
        reading.uptime_s = seconds_since(started) if lives else None
        if pid and not lives and reading.state in _ACTIVE:
            reading.state = "stopped"
    reading.turned_s = seconds_since(progress_ns)
    if lives:
        reading.pid, reading.progress_age_s = pid, reading.turned_s
    return reading


def _owner(index: int, values: dict[str, Any]) -> ProcessReading:
    reading = ProcessReading(f"server {index}")
    owner = values["owner"]
    reading.turned_s = seconds_since(values["progress_ns"])
    if is_same_process(owner, values["owner_ticks"]):
        reading.state = "running" if values["ready"] == owner else "starting"
        reading.pid, reading.progress_age_s = owner, reading.turned_s
    return reading


def read_server(control: Control, lanes: list[LaneReading]) -> ProcessReading:
    """The supervised server; of servers that attach by themselves, the first one that lives."""
    newest = max([lane.values["progress_ns"] for lane in lanes], default=0)
    reading = _process(control, "process.inference", newest)
    if reading.is_supervised:
        return reading
    for lane in lanes:
        if lane.owner.pid is not None:
            reading.state, reading.pid = lane.owner.state, lane.owner.pid
            reading.progress_age_s = lane.owner.progress_age_s
            break
    return reading
