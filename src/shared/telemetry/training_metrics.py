"""Training metrics: rolling means and lifetime totals, written to the control segment after each step.

One writer: whoever trains (the trainer process, or the server when training is coupled). A crash between two
fields leaves each of them whole.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from ..memory.control import Control

WINDOW = 100
RATE_SECONDS = 60.0


class DecisionScore(Protocol):
    """What decisions of the newest versions earn."""

    @property
    def mean(self) -> float:
        """Mean score; a blocked decision counts 0."""

    @property
    def reward(self) -> float:
        """Mean actual reward of the decisions that were let through."""

    @property
    def pass_rate(self) -> float:
        """Their share."""


class TrainingMetrics:
    """Counts steps, skips, errors and overruns; means are over the last 100 steps (requirement 8.1)."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._rolling: dict[str, deque[float]] = {
            name: deque(maxlen=WINDOW) for name in ("loss", "batch", "step_ms", "reward", "actual_reward")
        }
        self._times: deque[float] = deque()
        self._started = time.monotonic()
        control.set("metrics.started_ns", time.monotonic_ns())
        control.set("metrics.training_steps", 0)

    def record(self, row: dict[str, float]) -> None:
        """Record one successful step (a row of the step history)."""
        control = self._control
        for name, values in self._rolling.items():
            if not math.isnan(row[name]):
                values.append(row[name])
        now = time.monotonic()
        self._times.append(now)
        control.add("metrics.total_steps")
        control.add("metrics.training_steps")
        control.add("metrics.total_samples", int(row["batch"]))
        for name, column in (
            ("average_loss", "loss"),
            ("average_batch_size", "batch"),
            ("average_step_ms", "step_ms"),
            ("mean_reward", "reward"),
            ("actual_reward", "actual_reward"),
        ):
            control.set(f"metrics.{name}", mean(self._rolling[column]))
        for name, column in (
            ("last_step_ms", "step_ms"),
            ("entropy", "entropy"),
            ("gradient_norm", "gradient_norm"),
            ("clipped_share", "clipped_share"),
            ("lag_mean", "lag_mean"),
            ("lag_max", "lag_max"),
        ):
            control.set(f"metrics.{name}", row[column])
        control.append_history(row)
        self.refresh_rate()

    def record_event(self, row: dict[str, float]) -> None:
        """Record a rollback or a reset: a history row, but no step."""
        self._control.append_history(row)

    def record_score(self, score: DecisionScore | None, best: DecisionScore | None, best_version: int) -> None:
        """Publish what decisions earn (None: too few yet) and what the best saved version earned."""
        control = self._control
        control.set("metrics.live_score", score.mean if score else math.nan)
        control.set("metrics.live_reward", score.reward if score else math.nan)
        control.set("metrics.pass_rate", score.pass_rate if score else math.nan)
        control.set("metrics.live_best", best.mean if best else math.nan)
        control.set("metrics.live_best_version", best_version)

    def refresh_rate(self) -> None:
        """Bring steps per second up to date: steps of the last 60 s, or since the start if that is shorter ago."""
        now = time.monotonic()
        while self._times and self._times[0] < now - RATE_SECONDS:
            self._times.popleft()
        span = min(RATE_SECONDS, max(now - self._started, 1e-3))
        self._control.set("metrics.steps_per_second", len(self._times) / span)

    def count(self, name: str, amount: int = 1) -> None:
        """Raise a lifetime counter: `skipped_steps`, `total_errors`, `overruns`, `refused`, `guard_rollbacks`."""
        self._control.add(f"metrics.{name}", amount)


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else math.nan
