"""What a dashboard shows each second: statistics, new training steps, both processes, decision times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ....shared.memory.durations import DECISION
from ....shared.telemetry.process_reading import ProcessReading
from ....shared.telemetry.snapshot import Snapshot
from ....shared.telemetry.stats import stats_of

if TYPE_CHECKING:
    from ...engine import Engine

_COLUMNS = ("version", "time", "loss", "reward", "actual_reward", "event")
_FRESH = 0.5
"""Seconds for which one computation serves every dashboard."""


class Overview:
    """The picture of one instance at this moment."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._control = engine.control
        self._config = engine.control.schema["config"]
        self._picture: dict[str, Any] = {}
        self._taken = 0.0

    @property
    def head(self) -> int:
        """Rows ever written to the step history."""
        return int(self._control.get("history.head"))

    def picture(self, since: int, limit: int) -> dict[str, Any]:
        """Everything, with at most `limit` of the newest steps above version `since`, oldest first."""
        now = time.monotonic()
        if now - self._taken >= _FRESH:
            self._picture = self._take()
            self._taken = now
        rows = [_compact(row) for row in self._control.history(since, limit)] if limit else []
        return {**self._picture, "rows": rows}

    def _take(self) -> dict[str, Any]:
        snapshot = Snapshot(self._control)
        stats = stats_of(snapshot, self._config)
        return {
            "application": self._engine.application.name,
            "instance": snapshot.instance,
            "epoch": f"{snapshot.numbers['epoch']:016x}",
            "timestamp": time.time(),
            "monotonic": time.monotonic(),
            "troubles": self._engine.troubles(),
            "notices": snapshot.notices,
            "stats": {name: stats[name] for name in stats if name != "config"},
            "latency": latencies(snapshot),
            "processes": self._processes(snapshot),
        }

    def _processes(self, snapshot: Snapshot) -> dict[str, Any]:
        limit = self._engine.config.supervisor.hang_timeout
        trainer = _process(snapshot.trainer, limit)
        if not self._engine.enabled:
            trainer.update(state="off", healthy=True)
        processes = {"trainer": trainer}
        supervised = {worker.pid: worker for worker in snapshot.workers if worker.is_supervised}
        for lane in snapshot.servers:
            server, worker = _process(lane.owner, limit), supervised.get(lane.owner.pid)
            if worker is not None:
                server = {**_process(worker, limit), "progress_age_s": lane.owner.progress_age_s}
            processes[lane.owner.name] = server
        if len(snapshot.workers) > 1:
            # One that is down has no lane; the others answer, and show it.
            down = [worker for worker in snapshot.workers if worker.pid is None]
            processes.update({worker.name: _process(worker, limit) for worker in down})
        return processes


def _process(reading: ProcessReading, limit: float) -> dict[str, Any]:
    return {
        "state": reading.state,
        "healthy": reading.is_progressing(limit),
        "pid": reading.pid,
        "uptime_s": reading.uptime_s,
        "restarts": reading.restarts,
        "progress_age_s": reading.progress_age_s,
    }


def latencies(snapshot: Snapshot) -> dict[str, list[Any]]:
    """Decisions of all lanes by duration: the upper bounds of the buckets in microseconds, and their counts."""
    bounds = [1e6 * bound for bound in DECISION.bounds]
    return {"bounds_us": [*bounds, bounds[-1] * 2**0.5], "counts": snapshot.latency_counts}


def _compact(row: dict[str, float]) -> dict[str, float]:
    """A history row with what the charts need; six digits are more than a pixel can show."""
    return {name: float(f"{row[name]:.6g}") if name != "time" else row[name] for name in _COLUMNS}
