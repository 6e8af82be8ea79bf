"""What the gate has decided so far: lifetime counts, a rolling window, the current streak."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..shared.application import Verdict

log = logging.getLogger(__name__)

WINDOW = 100
STREAK_WARNING = 10
_WARNING_INTERVAL = 60.0


class GateStatistics:
    """Counts and averages under the names that status replies use. Not locked: its owner is."""

    def __init__(self, components: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self._components = components
        self._clock = clock
        self._next_warning = -math.inf
        self.clear()

    def clear(self) -> None:
        """Start again from zero."""
        self._started = self._clock()
        self._evaluations = 0
        self._sends = 0
        self._insufficient = 0
        self._expected = 0.0
        self._actual = 0.0
        self._window: deque[Verdict] = deque(maxlen=WINDOW)
        self._last_action: float | None = None
        self._streak = 0
        self._since_action = 0

    def record(self, verdict: Verdict) -> None:
        """Count one verdict."""
        self._evaluations += 1
        self._since_action += 1
        self._window.append(verdict)
        if math.isfinite(verdict.expected_reward):
            self._expected += verdict.expected_reward
        if verdict.send:
            self._sends += 1
            self._streak = 0
            return
        if verdict.reason == "insufficient_energy":
            self._insufficient += 1
        self._streak += 1
        if self._streak == STREAK_WARNING and self._clock() >= self._next_warning:
            self._next_warning = self._clock() + _WARNING_INTERVAL
            log.warning("the gate has said WAIT %d times in a row, the last time for %s", self._streak, verdict.reason)

    def acted(self) -> None:
        """A decision was let through and sent."""
        self._last_action = self._clock()
        self._since_action = 0

    def rewarded(self, reward: float) -> None:
        """Add one actual reward."""
        if math.isfinite(reward):
            self._actual += reward

    def metrics(self) -> dict[str, Any]:
        """`lifetime`, `rolling` (last 100) and `recent`, ready for JSON; averages are null before the first value."""
        window = list(self._window)
        now = self._clock()
        return {
            "lifetime": {
                "total_evaluations": self._evaluations,
                "total_sends": self._sends,
                "total_waits": self._evaluations - self._sends,
                "pass_rate": self._sends / self._evaluations if self._evaluations else 0.0,
                "insufficient_energy_count": self._insufficient,
                "cumulative_expected_reward": self._expected,
                "cumulative_actual_reward": self._actual,
                "uptime_seconds": now - self._started,
            },
            "rolling": {
                "window_size": len(window),
                "pass_rate": sum(verdict.send for verdict in window) / len(window) if window else 0.0,
                "average_expected_reward": _mean(
                    [verdict.expected_reward for verdict in window if math.isfinite(verdict.expected_reward)]
                ),
                "average_components": {
                    name: _mean([verdict.components[index] for verdict in window if verdict.components])
                    for index, name in enumerate(self._components)
                },
            },
            "recent": {
                "time_since_last_action": None if self._last_action is None else now - self._last_action,
                "wait_streak": self._streak,
            },
        }

    def thinking_loop(self) -> dict[str, int]:
        """How long the queen has been thinking without acting."""
        return {
            "observations_since_last_action": self._since_action,
            "total_gate_evaluations": self._evaluations,
            "gate_passes": self._sends,
        }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
