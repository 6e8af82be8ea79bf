"""What the estimates need of a target policy, one number for each logged decision, read in pieces that fit memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import EvaluationError
from .estimators import expected_under, predicted_for
from .fitted_rewards import cross_fitted
from .intervals import Floats, Interval
from .log.decisions import MOST_CHOICES, LoggedDecisions
from .target_policy import Target, joint_probabilities

_PIECE = 2_000_000
"""Probabilities that are held at a time."""

Predict = Callable[[Floats], Floats]
Fits = list[tuple[NDArray[np.bool_], Predict]]


@dataclass(frozen=True)
class PolicyColumns:
    """A policy beside a log of n decisions.

    `chosen` float64[n]: with which probability it takes the logged action. `overlap`: share of its probability on
    actions that the log took at least once. `expected` and `predicted` float64[n], if a model of the reward was given:
    what the model expects of the policy's decision, and of the logged action.
    """

    chosen: Floats
    overlap: float
    expected: Floats | None = None
    predicted: Floats | None = None


def columns_of(policy: Target, log: LoggedDecisions, fits: Fits | None = None) -> PolicyColumns:
    """Those of a policy, with the models of `fitted` if there are any.

    Raises EvaluationError if the policy has other heads than the log, or fails.
    """
    chosen = np.empty(len(log))
    expected, predicted = (np.zeros(len(log)), np.zeros(len(log))) if fits else (None, None)
    masses = [np.zeros(size) for size in log.sizes]
    is_small = log.choices <= MOST_CHOICES
    mass = np.zeros(log.choices if is_small else 0)
    joint = log.joint if is_small else np.zeros(len(log), np.int64)
    for piece in _pieces(log):
        heads = _heads(policy, log, piece)
        chosen[piece] = _chosen(heads, log.actions[piece])
        for head, probabilities in enumerate(heads):
            masses[head] += probabilities.sum(axis=0)
        if not is_small:
            continue
        together = joint_probabilities(heads)
        mass += together.sum(axis=0)
        if fits and expected is not None and predicted is not None:
            predictions = _predictions(fits, log.observations[piece], piece, log.choices)
            expected[piece] = expected_under(together, predictions)
            predicted[piece] = predicted_for(joint[piece], predictions)
    overlap = _share(mass, joint) if is_small else min(map(_share, masses, log.actions.T), default=1.0)
    return PolicyColumns(np.minimum(chosen, 1.0), overlap, expected, predicted)


def fitted(log: LoggedDecisions, limits: Interval) -> Fits | None:
    """Models of the reward, cross-fitted to decisions that all have one; None if there are too many actions."""
    if log.choices > MOST_CHOICES or len(log) < 2:
        return None
    features = log.observations.astype(np.float64)
    return cross_fitted(features, log.joint, log.rewards, log.choices, limits)


def _pieces(log: LoggedDecisions) -> Iterator[slice]:
    width = log.choices if log.choices <= MOST_CHOICES else sum(log.sizes)
    step = max(_PIECE // width, 1)
    for first in range(0, len(log), step):
        yield slice(first, first + step)


def _heads(policy: Target, log: LoggedDecisions, piece: slice) -> list[Floats]:
    masks = None
    if log.allowed is not None:
        masks = np.split(log.allowed[piece], np.cumsum(log.sizes)[:-1], axis=1)
    heads = policy.head_probabilities(log.observations[piece], masks)
    shapes = tuple(head.shape[1] for head in heads)
    if shapes != log.sizes:
        raise EvaluationError(f"{policy.name}: has heads of {list(shapes)} choices, the log's have {list(log.sizes)}")
    return heads


def _chosen(heads: Sequence[Floats], actions: NDArray[np.int64]) -> Floats:
    rows = np.arange(len(actions))
    chosen = np.ones(len(actions))
    for head, probabilities in enumerate(heads):
        chosen *= probabilities[rows, actions[:, head]]
    return chosen


def _predictions(fits: Fits, observations: NDArray[np.float32], piece: slice, choices: int) -> Floats:
    found = np.zeros((len(observations), choices))
    features = observations.astype(np.float64)
    for rows, predict in fits:
        mine = rows[piece]
        if mine.any():
            found[mine] = predict(features[mine])
    return found


def _share(mass: Floats, actions: NDArray[np.int64]) -> float:
    """The share of a policy's probability mass, float64[K], on what occurs among int64[n]."""
    total = float(mass.sum())
    return min(float(mass[np.unique(actions)].sum()) / total, 1.0) if total else 1.0
