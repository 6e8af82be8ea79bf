"""What `ctl top` shows of an instance: one reading of shared memory, and what changed since the reading before.

Standard library only.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ...shared.memory.control import Control
from ...shared.memory.durations import DECISION
from ...shared.memory.users import living
from ...shared.telemetry.snapshot import Snapshot
from . import status

_KEPT = 400
"""Newest values kept for each sparkline: as many as the widest terminal has columns."""
_SUMMED = (
    "send",
    "wait",
    "decided",
    "completed",
    "pending",
    "expired",
    "superseded",
    "dropped",
    "rejected",
    "lost",
    "errors",
    "unmatched",
)
_LEARNED = (
    "average_loss",
    "mean_reward",
    "actual_reward",
    "entropy",
    "gradient_norm",
    "lag_mean",
    "lag_max",
    "average_step_ms",
)
_METRICS = (
    "steps_per_second",
    "live_score",
    "live_best",
    "total_steps",
    "total_errors",
    "skipped_steps",
    "overruns",
    "refused",
)


@dataclass
class Reading:
    """One look at an instance; every rate and percentile is of the time since the look before."""

    status: dict[str, Any]
    """As `ctl status --json`."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the group `metrics.` of the control segment; NaN: not known yet."""
    lanes: dict[str, int] = field(default_factory=dict)
    """Counters summed over all lanes."""
    rollbacks: int = 0
    restored_version: int = 0
    pending_capacity: int = 0
    overwritten: int = 0
    decisions_per_second: float | None = None
    sent_share: float | None = None
    freshness: tuple[float | None, float | None] = (None, None)
    """Seconds until half of the rewards, and 99 % of them, were in the weights that decide; None: none were yet."""
    percentiles: dict[int, float] | None = None
    """Seconds by percentile 50, 95, 99; None if nothing was decided."""


class Reader:
    """Reads an instance again and again, and keeps what the sparklines show."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.columns: dict[str, deque[float]] = {
            name: deque(maxlen=_KEPT) for name in ("loss", "reward", "entropy", "decisions", "sent")
        }
        self._version = 0
        self._head = 0
        self._epoch = 0
        self._before: tuple[float, list[int], dict[str, int]] | None = None

    def read(self) -> Reading:
        """One look; of an instance that does not run only the status."""
        control = status.open_control(self.instance)
        try:
            if control is None or not living(control):
                self._before = None
                return Reading(status.stopped(self.instance))
            snapshot = Snapshot(control)
            if snapshot.numbers["epoch"] != self._epoch:
                self._start_again(snapshot.numbers["epoch"])
            reading = Reading(status.status_of(control, snapshot))
            self._fill(reading, snapshot)
            self._take_history(control)
            return reading
        finally:
            if control is not None:
                control.close()

    def _start_again(self, epoch: int) -> None:
        self._epoch, self._version, self._head, self._before = epoch, 0, 0, None
        for values in self.columns.values():
            values.clear()

    def _fill(self, reading: Reading, snapshot: Snapshot) -> None:
        reading.metrics = {name: snapshot.metrics[name] for name in _METRICS}
        for name in _LEARNED:
            known = snapshot.learned(name)
            reading.metrics[name] = math.nan if known is None else known
        reading.lanes = {name: snapshot.total(name) for name in _SUMMED}
        reading.rollbacks = snapshot.numbers["rollbacks"]
        reading.restored_version = snapshot.numbers["restored_version"]
        reading.pending_capacity = snapshot.total_pending_capacity
        reading.overwritten = sum(lane.overwritten for lane in snapshot.lanes)
        reading.freshness = snapshot.freshness(0.5), snapshot.freshness(0.99)
        buckets = snapshot.latency_counts
        now = time.monotonic()
        if self._before is not None:
            then, old_buckets, old = self._before
            sent, blocked = (max(0, reading.lanes[name] - old[name]) for name in ("send", "wait"))
            reading.decisions_per_second = (sent + blocked) / max(1e-6, now - then)
            self.columns["decisions"].append(reading.decisions_per_second)
            if sent + blocked:
                reading.sent_share = sent / (sent + blocked)
                self.columns["sent"].append(reading.sent_share)
                counts = [max(0, new - before) for new, before in zip(buckets, old_buckets, strict=True)]
                reading.percentiles = {percent: DECISION.percentile(counts, percent / 100) for percent in (50, 95, 99)}
        self._before = (now, buckets, reading.lanes)

    def _take_history(self, control: Control) -> None:
        head = control.get("history.head")
        if head == self._head:
            return
        for row in control.history(limit=min(head - self._head, _KEPT)):
            if row["event"] == 0:
                for name in ("loss", "reward", "entropy"):
                    self.columns[name].append(row[name])
        self._head = head
