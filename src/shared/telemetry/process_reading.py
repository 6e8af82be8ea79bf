"""What a reading of an instance says of one process. Standard library only, as snapshot.py."""

from __future__ import annotations

import time


def seconds_since(monotonic_ns: int) -> float | None:
    """Seconds since a moment on the monotonic clock; None for 0 (never)."""
    return max(0.0, (time.monotonic_ns() - monotonic_ns) / 1e9) if monotonic_ns else None


class ProcessReading:
    """One process: `state` is one of layout.STATES, as the supervisor saw it unless the process has died since.

    `pid` is None unless the process lives. Times are seconds, None where nothing is known: `uptime_s` since the process
    started, while it lives, `turned_s` since the last turn of its main loop, `progress_age_s` the same while it lives.
    `is_supervised`: a supervisor has it. A trainer that is a thread has no process of its own: its `pid` is None,
    and its uptime counts from its beginning.
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

    @property
    def is_up(self) -> bool:
        """True if it lives, whoever started it."""
        return self.pid is not None or self.state == "running"

    def is_progressing(self, limit: float) -> bool:
        """True if it lives and its main loop turned within the last `limit` seconds."""
        return self.progress_age_s is not None and self.progress_age_s < limit
