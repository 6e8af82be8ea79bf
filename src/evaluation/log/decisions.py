"""Logged decisions as arrays: what was decided, with which probability, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shared.application import ActionHead
from ...shared.experiences.records import SEND
from ..errors import EvaluationError
from ..intervals import Floats

NO_OTHER_HEADS = "decisions for a number or among candidates cannot be evaluated, only those of fixed choices"

MOST_CHOICES = 4096
"""Actions (combinations of all heads' choices) up to which they are looked at one by one."""


@dataclass(frozen=True)
class LoggedDecisions:
    """n decisions in the order of their times.

    observations float32[n, F], actions int64[n, heads], propensities float64[n] (with which the actions were drawn;
    NaN: not known), rewards float64[n] (actual ones; NaN: none), sent bool[n] (false: the gate held it back, WAIT),
    timestamps float64[n] (seconds since 1970). `sizes` are the numbers of choices of the heads. `allowed`: which of
    them each decision had, bool[n, choices of all heads one after the other]; None: all, always.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.int64]
    propensities: Floats
    rewards: Floats
    sent: NDArray[np.bool_]
    timestamps: Floats
    sizes: tuple[int, ...]
    allowed: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, records: NDArray[Any], heads: Sequence[ActionHead]) -> LoggedDecisions:
        """Those of records (structured array [n], `log.folder`). Raises EvaluationError for an impossible action."""
        if any(type(head) is not ActionHead for head in heads):
            raise EvaluationError(NO_OTHER_HEADS)
        ordered = records[np.argsort(records["timestamp"], kind="stable")]
        actions, sizes = ordered["action"].astype(np.int64), tuple(head.size for head in heads)
        wrong = ((actions < 0) | (actions >= np.array(sizes))).any(axis=1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise EvaluationError(f"record {row} has the action {actions[row].tolist()}; the heads have {list(sizes)}")
        propensities = ordered["probability"].astype(np.float64)
        propensities[~((propensities > 0.0) & (propensities <= 1.0 + 1e-6))] = np.nan
        return cls(
            observations=np.ascontiguousarray(ordered["observation"], np.float32),
            actions=actions,
            propensities=propensities,
            rewards=ordered["actual_reward"].astype(np.float64),
            sent=ordered["decision"] == SEND,
            timestamps=ordered["timestamp"].astype(np.float64),
            sizes=sizes,
            allowed=_allowed(ordered, sum(sizes)),
        )

    def __len__(self) -> int:
        return len(self.rewards)

    def take(self, rows: NDArray[np.bool_]) -> LoggedDecisions:
        """Those where `rows`, bool[n], is true."""
        return LoggedDecisions(
            self.observations[rows],
            self.actions[rows],
            self.propensities[rows],
            self.rewards[rows],
            self.sent[rows],
            self.timestamps[rows],
            self.sizes,
            None if self.allowed is None else self.allowed[rows],
        )

    @property
    def rewarded(self) -> NDArray[np.bool_]:
        """Rows that were let through and have an actual reward: bool[n]. A WAIT has none, whatever was expected."""
        rewarded: NDArray[np.bool_] = self.sent & np.isfinite(self.rewards)
        return rewarded

    @property
    def choices(self) -> int:
        """How many actions there are: combinations of the heads' choices."""
        count = 1
        for size in self.sizes:
            count *= size
        return count

    @property
    def joint(self) -> NDArray[np.int64]:
        """The actions as indices among all combinations, the last head's choice running fastest: int64[n]."""
        index: NDArray[np.int64] = np.zeros(len(self), np.int64)
        for head, size in enumerate(self.sizes):
            index = index * size + self.actions[:, head]
        return index


def _allowed(records: NDArray[Any], choices: int) -> NDArray[np.bool_] | None:
    """What the records say was allowed (see RecordLayout), bool[n, choices]; None if that was everything."""
    if "allowed" not in (records.dtype.names or ()):
        return None
    bits = np.unpackbits(records["allowed"], axis=1, count=choices, bitorder="little").view(np.bool_)
    return None if bits.all() else bits
