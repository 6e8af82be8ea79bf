"""What is wrong with an instance while its decisions go on: the reasons that `/health` gives for `degraded`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..shared.telemetry.learning_reasons import learning_reasons

if TYPE_CHECKING:
    from .engine import Engine

_RECENT = 60.0
"""Seconds for which a failure on the decision path counts as a trouble."""


class Health:
    """Watches one engine. `look` is called with every beat, so that a counter that rises is noticed when it does."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._errors = engine.lane.get("errors")
        self._failed_at: float | None = None

    def look(self) -> None:
        """Notice failures that were handled since the last look."""
        errors = self._engine.lane.get("errors")
        if errors > self._errors:
            self._failed_at = self._clock()
        self._errors = errors

    def troubles(self) -> list[str]:
        """Every reason, empty if all is well: what is wrong, what it costs, and what would be right."""
        engine = self._engine
        if engine.is_orphaned:
            return ["the instance was stopped; decisions go on, nobody learns from them: attach again"]
        self.look()
        troubles = []
        if engine.enabled and not engine.trainer_alive:
            troubles.append("the trainer does not make progress; decisions use the last published weights")
        troubles += learning_reasons(engine.control).values()
        unsaved = engine.control.get("trainer.unsaved")
        if unsaved:
            troubles.append(
                f"the last {unsaved} checkpoint(s) could not be saved; training goes on, a restart of the machine would"
                " lose it: see the trainer's log, is the disk full?"
            )
        if engine.control.get("supervisor.unwritten"):
            troubles.append(
                "a log cannot be written or rotated; nothing else is lost: see the supervisor's log, is the disk full,"
                " or was the data folder removed?"
            )
        waiting, most = engine.lane.get("pending"), engine.control.get("pending_capacity")
        if waiting >= most:
            troubles.append(
                f"the pending table is full: {waiting} decisions wait for their reward, and each new one gives up the"
                " oldest; raise inference.pending_capacity, or lower inference.pending_timeout"
            )
        if self._failed_at is not None and self._clock() - self._failed_at < _RECENT:
            troubles.append(
                f"the gate, the reward or the recording failed within the last {_RECENT:g} s (lane.errors:"
                f" {self._errors}); the decisions were answered: see the server's log"
            )
        try:
            return troubles + engine.application.troubles()
        except Exception as error:
            return [*troubles, f"the application cannot say how it is: {error!r}"]
