"""The pace of training: how many steps a tick takes, of how many experiences, and whether one comes early.

Where `steps_per_interval` is `auto` the data set it: `update_to_data` samples for each new experience, and where the
time of a tick does not suffice, batches grow before steps are lost.
"""

from __future__ import annotations

from ..shared.configuration.config import ContinuousTrainingConfig
from ..shared.memory.control import Control

_SMALL, _USUAL, _LARGEST = 64, 128, 4096
"""Experiences in a batch: while there are few of them, then, and where time is short."""
_FEW = 2000
_GROWTH = 0.03
"""A tick comes early when so large a share of all experiences is new."""
_LEAST_NEW = 8
_TOGETHER, _TOGETHER_SECONDS = 8, 0.05
"""Steps of one publication, at most, and the time that they may take: guarding and publishing cost about a step."""
_IDLE_TICKS = 4
"""Ticks that still train after the last new experience."""


class Pace:
    """Counts what the lanes completed and says what a tick should do."""

    def __init__(self, control: Control, is_replayed: bool) -> None:
        """`is_replayed`: the learner is one that large batches suit, and that should rest while nothing is new."""
        self._control = control
        self._is_replayed = is_replayed
        self._lanes = range(control.get("lanes"))
        self._seen = 0
        self._owed = 0.0
        self._idle = 0
        self.step_seconds = 0.002
        """What a step took lately."""
        self.is_bounded = False
        """True if the budget of the tick that was planned last did not allow what the data asked for."""

    def total(self) -> int:
        """Experiences that all lanes completed so far."""
        return sum(self._control.get(f"lane.{lane}.head") for lane in self._lanes)

    def is_early(self) -> bool:
        """True if enough is new for a tick before its time."""
        total = self.total()
        return total - self._seen >= max(_LEAST_NEW, _GROWTH * total)

    def plan(self, config: ContinuousTrainingConfig) -> tuple[int, int]:
        """Steps of the tick that begins now, and experiences in each; no steps if nothing was new for a while."""
        total = self.total()
        new, self._seen = max(0, total - self._seen), total
        self._idle = 0 if new else self._idle + 1
        rests = self._is_replayed if config.train_when_idle == "auto" else not config.train_when_idle
        if rests and self._idle > _IDLE_TICKS:
            return 0, config.batch_size
        # What the rings have lost already is not owed any more.
        self._owed += config.update_to_data * min(new, config.buffer_capacity)
        batch = config.batch_size
        if self._is_replayed:
            batch = max(batch, _SMALL if total < _FEW else _USUAL)
        most = max(1, int(config.tick_budget * config.training_interval / self.step_seconds))
        largest = _LARGEST if self._is_replayed else 4 * batch
        self.is_bounded = self._owed / batch >= most + 1
        while self._owed / batch > most and batch < largest:
            batch *= 2
        steps = min(most, max(1, int(self._owed / batch)))
        self._owed = 0.0 if steps == most else max(0.0, self._owed - steps * batch)
        return steps, batch

    def together(self, left: int) -> int:
        """Steps that are published as one, of the `left` ones of this tick."""
        return max(1, min(left, _TOGETHER, int(_TOGETHER_SECONDS / self.step_seconds)))

    def took(self, seconds: float) -> None:
        """A step took so long."""
        self.step_seconds += 0.1 * (seconds - self.step_seconds)
