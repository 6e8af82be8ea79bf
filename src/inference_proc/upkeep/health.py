"""What is wrong with an instance while its decisions go on: the reasons that `/health` gives for `degraded`."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...shared.application import Application
from ...shared.memory.control import Control
from ...shared.memory.processes import is_same_process
from ...shared.telemetry.learning_reasons import learning_reasons

_RECENT = 60.0
"""Seconds for which a failure on the decision path counts as a reason."""


class Health:
    """Watches one instance, for an engine in it. `look` is called with every beat, so that a rise is noticed early."""

    def __init__(self, control: Control, clock: Callable[[], float] = time.monotonic) -> None:
        self._control = control
        self._lanes = range(control.get("lanes"))
        self._clock = clock
        self._errors = self._count_errors()
        self._failed_at: float | None = None

    def look(self) -> None:
        """Notice failures that were handled since the last look."""
        errors = self._count_errors()
        if errors > self._errors:
            self._failed_at = self._clock()
        self._errors = errors

    def _count_errors(self) -> int:
        """Of all lanes: whichever of several server processes is asked says the same."""
        return sum(self._control.get(f"lane.{index}.errors") for index in self._lanes)

    def _most_waiting(self) -> int:
        """Decisions in the fullest pending table that a living process writes to."""
        get, found = self._control.get, 0
        for index in self._lanes:
            waiting = get(f"lane.{index}.pending")
            if waiting > found and is_same_process(get(f"lane.{index}.owner"), get(f"lane.{index}.owner_ticks")):
                found = waiting
        return int(found)

    def reasons(self, application: Application, is_stalled: bool) -> list[str]:
        """Every reason, empty if all is well: what is wrong, what it costs, and what would be right.

        `is_stalled`: there should be a trainer process, and it makes no progress.
        """
        control = self._control
        if control.is_removed:
            return ["the instance was stopped; decisions go on, nobody learns from them: attach again"]
        self.look()
        reasons = []
        if is_stalled:
            reasons.append("the trainer does not make progress; decisions use the last published weights")
        reasons += learning_reasons(control).values()
        unsaved = control.get("trainer.unsaved")
        if unsaved:
            reasons.append(
                f"the last {unsaved} checkpoint(s) could not be saved; training goes on, a restart of the machine would"
                " lose it: see the trainer's log, is the disk full?"
            )
        if control.get("supervisor.unwritten"):
            reasons.append(
                "a log cannot be written or rotated; nothing else is lost: see the supervisor's log, is the disk full,"
                " or was the data folder removed?"
            )
        waiting, most = self._most_waiting(), control.get("pending_capacity")
        if waiting >= most:
            reasons.append(
                f"the pending table is full: {waiting} decisions wait for their reward, and each new one displaces the"
                " oldest; raise inference.pending_capacity (the rings start empty then), or lower"
                " inference.pending_timeout"
            )
        if self._failed_at is not None and self._clock() - self._failed_at < _RECENT:
            reasons.append(
                f"the gate, the reward or the recording failed within the last {_RECENT:g} s (lane.errors:"
                f" {self._errors}); the decisions were answered: see the server's log"
            )
        try:
            return reasons + application.troubles()
        except Exception as error:
            return [*reasons, f"the application cannot say how it is: {error!r}"]
