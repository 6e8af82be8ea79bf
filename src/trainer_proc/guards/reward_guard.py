"""The reward guard: compares what decisions of recent versions earn with what those of the best saved version earned.

A decision's score is its actual reward, and 0 if the gate blocked it: a policy that gets everything blocked must not
look as if nothing had happened. Scores come from the rings, in the order in which decisions were completed.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shared.configuration.config import ContinuousTrainingConfig
from ...shared.experiences.records import SEND, TICKET_BITS
from ...shared.experiences.sampler import ReplayReader
from ...shared.memory.control import Control
from ...shared.training.outliers import RewardBounds
from ...shared.training.record_check import RecordCheck

_AT_ONCE = 4096
"""Newest decisions of each lane looked at in one turn; older ones are skipped."""
_BLOCKS = 20


@dataclass(frozen=True)
class Score:
    """Mean score of `count` decisions and its standard error; mean actual reward and share of the SENDs among them."""

    mean: float
    error: float
    count: int
    reward: float
    pass_rate: float

    def is_worse_than(self, other: Score, sigmas: float) -> bool:
        """True if it is below `other` by more than `sigmas` standard errors of the difference."""
        return self.mean < other.mean - sigmas * math.hypot(self.error, other.error)


class RewardScores:
    """The scores of the newest decisions, at most `window` of them, made by version `since` or later."""

    def __init__(
        self,
        control: Control,
        reader: ReplayReader,
        window: int,
        since: int,
        bounds: RewardBounds | None = None,
        check: RecordCheck | None = None,
    ) -> None:
        self._control = control
        self._reader = reader
        self._bounds = bounds
        self._check = check
        self.since = since
        self._newest = [self._head(lane) for lane in range(reader.lanes)]
        self._scores: deque[tuple[float, bool]] = deque(maxlen=window)
        self.fresh: NDArray[Any] = np.empty(0, reader.records.record)
        """The records (structured [n]) that the last `read_new` took in, oldest first."""

    def _head(self, lane: int) -> int:
        return int(self._control.get(f"lane.{lane}.head"))

    def restart(self, since: int) -> None:
        """Forget all scores; decisions of versions below `since` do not count any more."""
        self.since = since
        self._scores.clear()

    def resize(self, window: int) -> None:
        """Keep at most `window` scores from now on."""
        self._scores = deque(self._scores, maxlen=window)

    def read_new(self) -> int:
        """Take in what was completed since the last call; how many decisions of versions since `since` that were."""
        heads = [self._head(lane) for lane in range(self._reader.lanes)]
        most = max(head - newest for head, newest in zip(heads, self._newest, strict=True))
        self.fresh = self.fresh[:0]
        if most <= 0:
            return 0
        rows = self._reader.recent(min(most, _AT_ONCE) * len(heads))
        senseless = None if self._check is None else self._check.senseless(rows)
        if senseless is not None:
            rows = rows[~senseless]
        lanes = (rows["ticket"] >> np.uint64(TICKET_BITS)).astype(np.int64)
        known = np.array(self._newest, dtype=np.uint64)[lanes]
        self._newest = heads
        fresh = rows[(rows["sequence"] > known) & (rows["version"] >= self.since)]
        self.fresh = fresh[np.argsort(fresh["sequence"], kind="stable")]
        return self.add(self.fresh)

    def add(self, rows: NDArray[Any]) -> int:
        """Take in completed records (structured [n]); returns n."""
        sent = rows["decision"] == SEND
        scores = np.where(sent, rows["actual_reward"], 0.0)
        # One absurd reward would be the mean of all, and the best that there ever was.
        clipped = None if self._bounds is None else self._bounds.actual_rewards(scores[sent], rows["ticket"][sent])
        if clipped is not None:
            scores[sent] = clipped
        self._scores.extend(zip(scores.tolist(), sent.tolist(), strict=True))
        return len(rows)

    def score(self) -> Score | None:
        """The score of a full window, None before. Its error is that of block means, for neighbours are alike."""
        if len(self._scores) < (self._scores.maxlen or 0):
            return None
        values = np.array([score for score, _ in self._scores])
        sent = np.array([sent for _, sent in self._scores])
        blocks = np.array([block.mean() for block in np.array_split(values, _BLOCKS)])
        return Score(
            mean=float(values.mean()),
            error=float(blocks.std(ddof=1) / math.sqrt(_BLOCKS)),
            count=len(values),
            reward=float(values[sent].mean()) if sent.any() else math.nan,
            pass_rate=float(sent.mean()),
        )


class RewardGuard:
    """Says when to roll back. It trips only if the score stays worse for a quarter of the window (hysteresis).

    After a rollback only the restored version is compared with, by a score measured anew: if the world has changed, and
    the restored version earns less than it did, that is what can be expected now.
    """

    def __init__(self, config: ContinuousTrainingConfig) -> None:
        self.config = config
        self.best: Score | None = None
        self.best_version = 0
        self._worse_for = 0
        self._measure_again = 0

    def saved(self, version: int, score: Score | None) -> None:
        """Checkpoint `version` was saved while decisions had this score."""
        if score is None or self._measure_again:
            return
        if self.best is None or score.mean - score.error > self.best.mean - self.best.error:
            self.best, self.best_version = score, version

    def compare(self, score: Score | None, new: int) -> int:
        """The version to roll back to, 0 for none. `new` decisions came in since the last call."""
        if score is None or not self.config.live_guard:
            return 0
        if self._measure_again:
            self.best, self.best_version, self._measure_again = score, self._measure_again, 0
            return 0
        if self.best is None:
            return 0
        if score.is_worse_than(self.best, self.config.live_guard_sigmas):
            self._worse_for += new
        elif not score.is_worse_than(self.best, self.config.live_guard_sigmas / 2):
            self._worse_for = 0
        return self.best_version if self._worse_for > self.config.live_guard_window / 4 else 0

    def restart(self, restored: int = 0) -> None:
        """Other weights are in force; `restored` is the checkpoint they came from (0: fresh ones)."""
        self.best, self.best_version = None, 0
        self._worse_for = 0
        self._measure_again = restored
