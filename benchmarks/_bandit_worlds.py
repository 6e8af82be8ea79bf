"""Made-up worlds with a known best choice, for the scenarios of bandits.py, and a peer that plays in them.

A visitor is F normal numbers x. Choice k is rewarded with the chance low + (high - low) / (1 + exp(-w_k x)): linear up
to the logistic curve, as click models are.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Visits:
    """One pass, the same for every arm: observations float64[N, F], chances float64[N, K] of a reward for each choice,
    `luck` float64[N] (a choice is rewarded if its chance is above it), and `delays` float64[N] of the rewards, seconds.

    `poisoned` bool[N]: the visitor sends absurd numbers. They do not count in the figures.
    """

    x: Floats
    chances: Floats
    luck: Floats
    delays: Floats
    poisoned: NDArray[np.bool_]

    def share(self, earned: Floats, part: slice) -> float:
        """How far the chances of what was chosen lie on the way from a choice by chance (0) to the best one (1)."""
        worst, best = self.no_learning(part), self.oracle(part)
        return (self._mean(earned, part) - worst) / (best - worst)

    def oracle(self, part: slice) -> float:
        """The mean chance of the best choices."""
        return self._mean(self.chances.max(axis=1), part)

    def no_learning(self, part: slice) -> float:
        """The mean chance of choices drawn evenly."""
        return self._mean(self.chances.mean(axis=1), part)

    def _mean(self, values: Floats, part: slice) -> float:
        return float(values[part][~self.poisoned[part]].mean())


@dataclass(frozen=True)
class World:
    """How chances come about. `drift`: none, abrupt (in the middle of the pass the choices swap places) or slow (their
    weights turn into others from the first visit to the last)."""

    features: int = 10
    choices: int = 8
    low: float = 0.0
    high: float = 1.0
    drift: str = "none"
    gain: float = 2.0
    """Standard deviation of w_k x."""

    def visits(self, count: int, seed: int, delay: tuple[float, float], poisoned: float) -> Visits:
        """A pass of `count` visits with rewards after a time within `delay` seconds."""
        rng = np.random.default_rng([seed, 1])
        weights, others = self.gain / np.sqrt(self.features) * rng.standard_normal((2, self.choices, self.features))
        x = rng.standard_normal((count, self.features)).astype(np.float32).astype(np.float64)
        scores = x @ weights.T
        progress = np.arange(count)[:, None] / count
        if self.drift == "abrupt":
            scores = np.where(progress < 0.5, scores, np.roll(scores, 1, axis=1))
        elif self.drift == "slow":
            turn = progress * np.pi / 2
            scores = np.cos(turn) * scores + np.sin(turn) * (x @ others.T)
        chances = self.low + (self.high - self.low) / (1 + np.exp(-scores))
        return Visits(x, chances, rng.random(count), rng.uniform(*delay, count), rng.random(count) < poisoned)


class LinearThompson:
    """Thompson sampling from a Bayesian linear regression of each choice's reward."""

    def __init__(self, features: int, choices: int, seed: int, noise: float = 0.3) -> None:
        self.noise, self.rng = noise, np.random.default_rng(seed)
        self.precision = np.tile(np.eye(features + 1), (choices, 1, 1))
        self.moment, self.mean = np.zeros((2, choices, features + 1))
        self.root = self.precision.copy()

    def decide(self, x: Floats) -> int:
        """The best choice for weights drawn from what is believed."""
        drawn = self.mean + self.noise * np.einsum("kij,kj->ki", self.root, self.rng.standard_normal(self.mean.shape))
        return int((drawn @ np.append(x, 1.0)).argmax())

    def learn(self, x: Floats, choice: int, reward: float) -> None:
        """A reward came in."""
        z = np.append(x, 1.0)
        self.precision[choice] += np.outer(z, z)
        self.moment[choice] += reward * z
        inverse = np.linalg.inv(self.precision[choice])
        self.mean[choice], self.root[choice] = inverse @ self.moment[choice], np.linalg.cholesky(inverse)


def simulate(visits: Visits, seed: int, rate: float, silence: float | None) -> Floats:
    """The chances of what linear Thompson sampling chooses, in simulated time, with the same delays.

    `silence`: seconds after which a visit that was not rewarded is known to have failed; None: failures are reported
    as rewards are.
    """
    peer = LinearThompson(visits.x.shape[1], visits.chances.shape[1], seed)
    earned = np.zeros(len(visits.x))
    waiting: list[tuple[float, int, int, float]] = []
    for number, x in enumerate(visits.x):
        now = number / rate
        while waiting and waiting[0][0] <= now:
            _, earlier, choice, reward = heapq.heappop(waiting)
            peer.learn(visits.x[earlier], choice, reward)
        choice = peer.decide(x)
        earned[number] = visits.chances[number, choice]
        reward = float(visits.luck[number] < earned[number])
        wait = silence if silence is not None and not reward else visits.delays[number]
        heapq.heappush(waiting, (now + wait, number, choice, reward))
    return earned
