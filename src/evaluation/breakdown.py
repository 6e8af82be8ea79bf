"""An evaluation in parts: by the logged action, by ranges of a feature, or over time."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shared.application import ActionHead
from .errors import EvaluationError
from .estimators import SNIPS, Estimate, estimate, snips_terms
from .evaluation import Evaluation
from .intervals import BERNSTEIN
from .support import LEAST_EFFECTIVE, effective_rows

ACTION, TIME = "action", "time"
PARTS = 4
"""Ranges of a feature, with as many decisions each."""
WINDOWS = 10
"""Stretches of time, with as many decisions each."""


@dataclass(frozen=True)
class Part:
    """The decisions with a reward of one part: what they earned, and what the policy would have (None: unknown)."""

    label: str
    rows: int
    effective: float
    logged: float
    estimate: Estimate | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "part": self.label,
            "rows": self.rows,
            "effective": self.effective,
            "logged": self.logged,
            "estimate": None if self.estimate is None else self.estimate.to_dict(),
            "reason": self.reason,
        }


def breakdown(
    evaluation: Evaluation, by: str, features: Sequence[str], heads: Sequence[ActionHead], method: str = BERNSTEIN
) -> list[Part]:
    """The self-normalised estimate in each part. `by` is "action" (of the first head), the name of a head, "time" or
    the name of a feature. For an action it is what the action would have earned where the policy would have taken it.

    Raises EvaluationError for a name that there is not.
    """
    log = evaluation.rewarded
    if by == TIME:
        groups = _windows(log.timestamps)
    elif by == ACTION or by in [head.name for head in heads]:
        index = 0 if by == ACTION else [head.name for head in heads].index(by)
        groups = _choices(log.actions[:, index], heads[index])
    elif by in features:
        groups = _ranges(log.observations[:, list(features).index(by)], by)
    else:
        names = ", ".join([ACTION, TIME, *(head.name for head in heads), *features[:20]])
        raise EvaluationError(f"there is nothing called {by!r} to break the log down by; there are {names}")
    return [_part(label, evaluation, rows, method) for label, rows in groups]


Groups = Iterator[tuple[str, NDArray[np.bool_]]]


def _choices(actions: NDArray[np.int64], head: ActionHead) -> Groups:
    for choice in np.unique(actions):
        label = head.labels[choice] if choice < len(head.labels) else str(choice)
        yield f"{head.name} {label}", actions == choice


def _ranges(values: NDArray[np.float32], name: str) -> Groups:
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, PARTS + 1))) if len(values) else np.empty(0)
    if len(edges) == 1:
        yield f"{name} {edges[0]:.4g}", np.ones(len(values), bool)
    for low, high in itertools.pairwise(edges):
        is_last = high == edges[-1]
        yield f"{name} {low:.4g} to {high:.4g}", (values >= low) & ((values <= high) if is_last else (values < high))


def _windows(timestamps: NDArray[np.float64]) -> Groups:
    place = np.arange(len(timestamps)) * WINDOWS // max(len(timestamps), 1)
    for number in np.unique(place):
        rows = place == number
        yield time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(timestamps[rows][0])), rows


def _part(label: str, evaluation: Evaluation, rows: NDArray[np.bool_], method: str) -> Part:
    rewards, weights = evaluation.rewarded.rewards[rows], evaluation.policy.weights[rows]
    effective = effective_rows(weights)
    logged = float(rewards.mean()) if len(rewards) else math.nan
    if effective < LEAST_EFFECTIVE:
        reason = f"only {effective:.3g} of {len(rewards):,} rows count, {LEAST_EFFECTIVE:g} are needed"
        return Part(label, len(rewards), effective, logged, None, reason)
    found = estimate(SNIPS, snips_terms(rewards, weights, evaluation.limits), method)
    return Part(label, len(rewards), effective, logged, found, "")
