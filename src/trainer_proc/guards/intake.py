"""What enters a training step: rewards within bounds, and no experience that would spoil the step for the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shared.application import Application
from ...shared.memory.control import Control
from ...shared.training.outliers import OBSERVATIONS_BEYOND, LearnedRange, RewardBounds, Tickets
from ...shared.training.record_check import RecordCheck

log = logging.getLogger(__name__)

_TRIAL_SECONDS = 2.0
"""Longest search for experiences that spoil a step: the supervisor takes a trainer that stands still for dead."""


class Intake:
    """Looks at every batch before it is trained on, and counts what it changes or leaves out."""

    def __init__(self, control: Control, application: Application) -> None:
        self._control = control
        self.gated = application.build_gate is not None
        self.bounds = RewardBounds(application.reward_range)
        self._magnitudes = LearnedRange(OBSERVATIONS_BEYOND)
        self._spoilers = Tickets()
        self.check = RecordCheck(application.heads, control.get("lanes"))
        self._counted = {"clipped_rewards": 0, "left_out": 0}
        self._blamed = 0
        self._senseless = 0

    def admit(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The records (structured [n]) that may be trained on, their rewards clipped in place."""
        senseless = self.check.senseless(rows)
        if senseless is not None:
            self._senseless += int(np.count_nonzero(senseless))
            rows = rows[~senseless]
        keep = self._sensible(rows)
        if keep is not None:
            rows = rows[keep]
        self.bounds.clip(rows, self.gated)
        self._count("clipped_rewards", self.bounds.outliers)
        self._count("left_out", self._magnitudes.outliers + self._blamed + self._senseless)
        return rows

    def _sensible(self, rows: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Which records have a sensible observation and have not spoilt a step: bool[n], None for all."""
        largest = np.abs(rows["observation"]).max(axis=1, initial=0.0).astype(np.float64)
        outside = self._magnitudes.find_outliers(largest, rows["ticket"])
        if len(self._spoilers):
            spoilers = self._spoilers.among(rows["ticket"])
            outside = spoilers if outside is None else outside | spoilers
        return None if outside is None else ~outside

    def _count(self, name: str, total: int) -> None:
        if total != self._counted[name]:
            self._control.add(f"metrics.{name}", total - self._counted[name])
            self._counted[name] = total

    def leave_out(self, rows: NDArray[Any]) -> None:
        """Never train on these records (structured [n]) again: with them a step fails, without them it does not."""
        self._blamed += int(np.count_nonzero(self._spoilers.add(rows["ticket"])))
        for row in rows:
            log.error(
                "an experience is left out of training: a step with it fails or is not finite (key %r, version %d,"
                " observation %s, reward %g)",
                bytes(row["key"]).decode("utf-8", "replace"), row["version"],
                np.array2string(row["observation"], threshold=8, precision=4), row["actual_reward"],
            )  # fmt: skip
        self._count("left_out", self._magnitudes.outliers + self._blamed + self._senseless)


def find_spoilers(rows: NDArray[Any], passes: Callable[[NDArray[Any]], bool]) -> NDArray[Any]:
    """The records (structured [n]) with which a step fails; `passes` tries a step and undoes it.

    By halves. None are found if all of them pass together, if it takes too many tries or too long, or if most would be:
    then it is not the experiences.
    """
    tries = 4 * len(rows).bit_length() + 8
    deadline = time.monotonic() + _TRIAL_SECONDS
    parts, found = [np.arange(len(rows))], []
    while parts:
        if tries == 0 or time.monotonic() > deadline:
            return rows[:0]
        tries -= 1
        part = parts.pop()
        if passes(rows[part]):
            continue
        if len(part) == 1:
            found.append(part)
        else:
            parts += np.array_split(part, 2)
    if len(found) > len(rows) // 2:
        return rows[:0]
    return rows[np.concatenate(found)] if found else rows[:0]
