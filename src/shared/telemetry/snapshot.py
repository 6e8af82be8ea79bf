"""One reading of an instance, from which every surface shows its numbers: `ctl`, REST, the dashboard, Prometheus.

All that is derived from shared memory (what is in the buffer, which lanes count, whether a process lives) is derived
here, so that two surfaces that are asked at the same moment say the same. Standard library only, and without `typing`
or `dataclasses`: an operator's command reads an instance before those would be imported.
"""

from __future__ import annotations

import math

from ..memory import layout
from ..memory.control import Control
from ..memory.durations import FRESHNESS
from ..memory.processes import is_same_process, start_ticks, uptime_of
from .lane_reading import LaneReading, lanes_of, newest_turn, oldest_turn, read_lanes
from .learning_reasons import learning_notices, learning_reasons
from .process_reading import ProcessReading, seconds_since

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


class Snapshot:
    """What an instance is at one moment. Each number is whole; all are read within a millisecond.

    `lanes` are those that a server process ever claimed. `workers` are the processes of the supervised server, `server`
    the first of them. `metrics` are the trainer's, by their names without
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
        self.workers = [read_server(control, self.lanes), *read_other_workers(control)]
        self.supervisor = _process(control, "supervisor", get("supervisor.progress_ns"))
        self.reasons = learning_reasons(control)
        self.notices = learning_notices(control)
        self.numbers: dict[str, Any] = {name: get(name) for name in _NUMBERS}

    @property
    def server(self) -> ProcessReading:
        """The server; of several workers the first."""
        return self.workers[0]

    @property
    def schema(self) -> dict[str, Any]:
        """What the instance was created with; it never changes, and is read when it is asked for."""
        return self._control.schema

    def total(self, name: str) -> Any:
        """Sum of a counter over the lanes."""
        return sum(lane.values[name] for lane in self.lanes)

    def learned(self, name: str) -> float | None:
        """A mean over the last training steps, or a figure of the last one, by its name in `metrics`.

        None before the first step of this trainer process, which may have taken over an instance that is older, and
        where the figure is no finite number.
        """
        value: float = self.metrics[name]
        return value if self.metrics["training_steps"] and math.isfinite(value) else None

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
        return _summed([lane.latency_counts for lane in self.lanes], layout.LATENCY_BUCKETS)

    @property
    def freshness_counts(self) -> list[int]:
        """Rewards of all lanes in each bucket of the time until weights trained after them decided."""
        return _summed([lane.freshness_counts for lane in self.lanes], layout.FRESHNESS_BUCKETS)

    def freshness(self, share: float) -> float | None:
        """Seconds after which `share` of the rewards were in the weights that decide; None before the first one."""
        counts = self.freshness_counts
        return FRESHNESS.percentile(counts, share) if any(counts) else None

    @property
    def servers(self) -> list[LaneReading]:
        """The lanes whose owner lives."""
        return [lane for lane in self.lanes if lane.owner.pid is not None]


def _summed(lanes: list[list[int]], buckets: int) -> list[int]:
    """The sum over the lanes of what each bucket counts."""
    return [sum(column) for column in zip(*lanes, strict=True)] or [0] * buckets


def read_trainer(control: Control) -> ProcessReading:
    """The trainer, whoever started it: a process that the supervisor watches, one that said who it is, or a thread.

    Of a thread nothing is known but its turns, and when it began.
    """
    reading = _process(control, "process.trainer", control.get("trainer.progress_ns"))
    ready = control.get("trainer.ready")
    ticks = start_ticks(ready) if ready else 0
    if reading.is_supervised or (ready and not ticks):
        return reading
    is_turning = reading.turned_s is not None and reading.turned_s < _RECENT
    if ready or is_turning:
        reading.state, reading.pid, reading.progress_age_s = "running", ready or None, reading.turned_s
        reading.uptime_s = uptime_of(ticks) if ready else seconds_since(control.get("metrics.started_ns"))
    return reading


def _process(control: Control, prefix: str, progress_ns: int) -> ProcessReading:
    """A process that the segment names, by its process id and start time: another one of that number is not it."""
    get, name = control.get, prefix.rpartition(".")[2]
    pid, ticks = get(f"{prefix}.pid"), get(f"{prefix}.start_ticks")
    lives = is_same_process(pid, ticks)
    if name == "supervisor":
        reading = ProcessReading(name, True)
        reading.state = "running" if lives else "stopped"
    else:
        state, started = get(f"{prefix}.state"), get(f"{prefix}.started_ns")
        reading = ProcessReading(name, bool(started or state), get(f"{prefix}.restarts"))
        reading.state = layout.STATES[min(state, len(layout.STATES) - 1)]
        if pid and not lives and reading.state in _ACTIVE:
            reading.state = "stopped"
    reading.turned_s = seconds_since(progress_ns)
    if lives:
        reading.pid, reading.uptime_s, reading.progress_age_s = pid, uptime_of(ticks), reading.turned_s
    return reading


def read_server(control: Control, lanes: list[LaneReading]) -> ProcessReading:
    """The supervised server; of servers that attach by themselves, the first one that lives.

    A supervised server's last turn is that which the supervisor goes by (`oldest_turn`), and the newest before there is
    one. Others' lanes say nothing about it.
    """
    reading = read_worker(control, layout.SERVERS[0])
    if reading.is_supervised:
        return reading
    for lane in lanes:
        if lane.owner.pid is not None:
            reading.state, reading.pid, reading.uptime_s = lane.owner.state, lane.owner.pid, lane.owner.uptime_s
            reading.progress_age_s = reading.turned_s = lane.owner.turned_s
            return reading
    reading.turned_s = seconds_since(newest_turn(control, [lane.index for lane in lanes]))
    return reading


def read_worker(control: Control, name: str) -> ProcessReading:
    """One supervised process of the server, by its name in layout.SERVERS."""
    reading = _process(control, f"process.{name}", 0)
    if reading.is_supervised and reading.pid is not None:
        own = lanes_of(control, reading.pid)
        turn = oldest_turn(control, own)
        reading.turned_s = seconds_since(newest_turn(control, own) if turn is None else turn)
        reading.progress_age_s = reading.turned_s
    return reading


def read_other_workers(control: Control) -> list[ProcessReading]:
    """The supervised processes of the server after the first; none unless `inference.workers` is above 1."""
    found = []
    for name in layout.SERVERS[1:]:
        # They are started in their order, so the first that never was ends the row.
        if not control.get(f"process.{name}.started_ns") and not control.get(f"process.{name}.state"):
            break
        found.append(read_worker(control, name))
    return found
