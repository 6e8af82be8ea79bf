"""Models of the reward, fitted to a log: what each action is expected to earn, for the direct and the doubly robust
estimate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .intervals import Floats, Interval

FOLDS = 5
"""Parts of the log; the model that is used for one is fitted to the others."""
FARTHEST = 8.0
"""Features are cut off here, in deviations."""

_SHRINKAGE = 10.0
"""Rows that an action needs until its own rewards count as much as what is known of all actions."""
_MOST_NUMBERS = 20_000_000
"""The largest size of all actions' second moments, float64: above it an action has only a mean of its own."""

Ints = NDArray[np.int64]


def cell_means(rewards: Floats, actions: Ints, cells: Ints, count: tuple[int, int]) -> Floats:
    """The mean reward of each action in each cell of contexts, float64[cells, K]; 0 where there is no row.

    `cells` int64[n] are indices of the rows' contexts; `count` is (cells, K). Not cross-fitted: each row is among those
    that its own prediction is the mean of.
    """
    shape = count[0] * count[1]
    index = cells * count[1] + actions
    rows = np.bincount(index, minlength=shape)
    means: Floats = np.bincount(index, rewards, shape) / np.maximum(rows, 1)
    return means.reshape(count)


class RewardFit:
    """Ridge regressions of the reward on the features: one of all rows, and for each of K actions of what it leaves.

    `predict` gives float64[m, K] for features [m, F]. An action that has few rows is expected to earn what any would.
    """

    def __init__(self, features: Floats, actions: Ints, rewards: Floats, choices: int, limits: Interval) -> None:
        self._centre = features.mean(axis=0)
        deviation = features.std(axis=0)
        self._inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-12)
        self._limits = limits
        design = self._design(features)
        width = design.shape[1]
        self._common = np.linalg.solve(design.T @ design + _ridge(width, 1.0), design.T @ rewards)
        left = rewards - design @ self._common
        self._own = np.zeros((choices, width))
        if choices * width * width <= _MOST_NUMBERS:
            self._fit_lines(design, actions, left)
        else:
            sums = np.bincount(actions, left, choices)
            self._own[:, 0] = sums / (np.bincount(actions, minlength=choices) + _SHRINKAGE)

    def _fit_lines(self, design: Floats, actions: Ints, left: Floats) -> None:
        order = np.argsort(actions, kind="stable")
        taken, first = np.unique(actions[order], return_index=True)
        ridge = _SHRINKAGE * np.eye(design.shape[1])
        for action, rows in zip(taken, np.split(order, first[1:]), strict=True):
            own = design[rows]
            self._own[action] = np.linalg.solve(own.T @ own + ridge, own.T @ left[rows])

    def _design(self, features: Floats) -> Floats:
        scaled = np.clip((features - self._centre) * self._inverse, -FARTHEST, FARTHEST)
        return np.concatenate([np.ones((len(features), 1)), scaled], axis=1)

    def predict(self, features: Floats) -> Floats:
        """Expected rewards float64[m, K] of features float64[m, F], inside the limits of the rewards."""
        design = self._design(features)
        values: Floats = design @ self._own.T + (design @ self._common)[:, np.newaxis]
        return values.clip(*self._limits)


def _ridge(width: int, strength: float) -> Floats:
    """A penalty on slopes, hardly one on the mean."""
    penalty = np.full(width, strength)
    penalty[0] = 1e-9
    return np.diag(penalty)


def cross_fitted(
    features: Floats, actions: Ints, rewards: Floats, choices: int, limits: Interval
) -> list[tuple[NDArray[np.bool_], Callable[[Floats], Floats]]]:
    """For each fold its rows (bool[n]) and the prediction (features [m, F] -> float64[m, K]) fitted to all others.

    Folds are every fifth row (Chernozhukov et al., "Double/debiased machine learning", Econometrics Journal 21, 2018).
    """
    fold = np.arange(len(rewards)) % FOLDS
    found: list[tuple[NDArray[np.bool_], Callable[[Floats], Floats]]] = []
    for number in range(FOLDS):
        rest = fold != number
        if rest.any() and not rest.all():
            fit = RewardFit(features[rest], actions[rest], rewards[rest], choices, limits)
            found.append((~rest, fit.predict))
    return found
