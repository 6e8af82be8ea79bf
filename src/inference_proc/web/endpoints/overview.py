"""What a dashboard shows each second: statistics, new training steps, both processes, decision times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ....shared.memory import layout
from ....shared.memory.control import Control
from ....shared.memory.processes import is_same_process
from ....shared.telemetry.learning_reasons import learning_notices
from ....shared.telemetry.stats import seconds_since, training_stats

if TYPE_CHECKING:
    from ...engine import Engine
    from ..serving import Serving

_COLUMNS = ("version", "time", "loss", "reward", "actual_reward", "event")
_FRESH = 0.5
"""Seconds for which one computation serves every dashboard."""


class LiveView:
    """The live picture of one service's instance."""

    def __init__(self, service: Serving, engine: Engine) -> None:
        self._service = service
        self._engine = engine
        self._control = engine.control
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
        stats = training_stats(self._control)
        del stats["config"]
        return {
            "application": self._engine.application.name,
            "instance": self._control.instance,
            "epoch": f"{self._control.get('epoch'):016x}",
            "timestamp": time.time(),
            "monotonic": time.monotonic(),
            "troubles": self._engine.troubles(),
            "notices": learning_notices(self._control),
            "stats": stats,
            "latency": latencies(self._control),
            "processes": self._processes(),
        }

    def _processes(self) -> dict[str, Any]:
        control, engine = self._control, self._engine
        limit = engine.config.supervisor.hang_timeout
        trainer = _process(control, "process.trainer", control.get("trainer.progress_ns"), limit)
        trainer["pid"] = trainer["pid"] or control.get("trainer.ready")
        if not engine.enabled:
            trainer.update(state="off", healthy=True)
        processes = {"trainer": trainer}
        for index in range(control.get("lanes")):
            lane = f"lane.{index}"
            owner = control.get(f"{lane}.owner")
            if not is_same_process(owner, control.get(f"{lane}.owner_ticks")):
                continue
            server = _process(control, "process.inference", control.get(f"{lane}.progress_ns"), limit)
            if owner != server["pid"]:
                server.update(pid=owner, restarts=0, uptime_s=None)
            if index == engine.lane.index:
                server["uptime_s"] = self._service.uptime
            processes[f"server {index}"] = server
        return processes


def _process(control: Control, name: str, progress_ns: int, limit: float) -> dict[str, Any]:
    age = seconds_since(progress_ns)
    is_alive = age is not None and age < limit
    # Without a supervisor its record of the process is empty, and progress alone says how things are.
    state = layout.STATES[control.get(f"{name}.state") % len(layout.STATES)] if control.get(f"{name}.pid") else None
    return {
        "state": state or ("running" if is_alive else "stopped"),
        "healthy": is_alive,
        "pid": control.get(f"{name}.pid"),
        "uptime_s": seconds_since(control.get(f"{name}.started_ns")),
        "restarts": control.get(f"{name}.restarts"),
        "progress_age_s": age,
    }


def latencies(control: Control) -> dict[str, list[float]]:
    """Decisions of all lanes by duration: the upper bounds of the buckets in microseconds, and their counts."""
    lanes = range(control.get("lanes"))
    buckets = range(layout.LATENCY_BUCKETS)
    return {
        "bounds_us": [16.0 * 2 ** (index / 2) for index in buckets],
        "counts": [sum(control.get(f"lane.{lane}.latency_{index}") for lane in lanes) for index in buckets],
    }


def _compact(row: dict[str, float]) -> dict[str, float]:
    """A history row with what the charts need; six digits are more than a pixel can show."""
    return {name: float(f"{row[name]:.6g}") if name != "time" else row[name] for name in _COLUMNS}
