"""The scenarios of bandits.py in simulated time: the learner that is installed, without processes or shared memory.

A second of visits takes milliseconds, so that choices of the learner can be compared over many seeds. The trainer ticks
every second, sooner while much is new, and the weights do not change in between.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _bandit_scenarios import Scenario
from _bandit_worlds import Visits
from numpy.typing import NDArray
from tandem.shared.application import ActionHead
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.learning import Batch
from tandem.shared.models.reward_model import RewardModel
from tandem.trainer_proc.pace import Pace
from tandem.trainer_proc.regression.reward_regression import RewardRegression

CONFIG = ContinuousTrainingConfig()
CAPACITY = CONFIG.buffer_capacity
_LOOK = 0.05

Draw = Callable[[np.random.Generator, int, int], NDArray[np.int64]]
"""Places of a batch among the n experiences that there are, oldest first: draw(rng, n, size)."""


def uniform(rng: np.random.Generator, count: int, size: int) -> NDArray[np.int64]:
    """Any experience."""
    return rng.integers(count, size=min(size, count))


def half_recent(rng: np.random.Generator, count: int, size: int) -> NDArray[np.int64]:
    """Half of them from the newest quarter."""
    size = min(size, count)
    newest = count - 1 - rng.integers(max(1, count // 4), size=size // 2)
    return np.concatenate([rng.integers(count, size=size - size // 2), newest])


class _Ring:
    """Completed experiences, the newest CAPACITY of them."""

    def __init__(self, features: int) -> None:
        self.head = 0
        self.observations = np.zeros((CAPACITY, features), np.float32)
        self.actions = np.zeros(CAPACITY, np.int64)
        self.rewards = np.zeros(CAPACITY, np.float32)

    def __len__(self) -> int:
        return min(self.head, CAPACITY)

    def get(self, name: str) -> int:
        """As a control segment whose one lane has this ring: what the pace asks for."""
        return {"lanes": 1, "lane.0.head": self.head}[name]

    def append(self, observation: NDArray[Any], action: int, reward: float) -> None:
        place = self.head % CAPACITY
        self.observations[place], self.actions[place], self.rewards[place] = observation, action, reward
        self.head += 1

    def batch(self, places: NDArray[np.int64]) -> Batch:
        """The experiences at these places, counted from the oldest one that is there."""
        at = (self.head - len(self) + places) % CAPACITY
        return Batch(
            torch.from_numpy(self.observations[at]),
            torch.from_numpy(self.actions[at][:, None]),
            torch.from_numpy(self.rewards[at]),
            torch.ones(len(at)),
            torch.ones(len(at), dtype=torch.bool),
        )


class Simulation:
    """One pass of one scenario."""

    def __init__(self, scenario: Scenario, seed: int, draw: Draw = half_recent) -> None:
        self.scenario = scenario
        self.visits: Visits = scenario.world.visits(scenario.visits, seed, scenario.delay, 0.0)
        self.rng = np.random.default_rng([seed, 5])
        self.earned = np.zeros(scenario.visits)
        torch.manual_seed(seed)
        world = scenario.world
        self.model = RewardModel(world.features, world.choices)
        self.learner = RewardRegression(self.model, (ActionHead("choice", world.choices),), CONFIG)
        self._draw = draw
        self._ring = _Ring(world.features)
        self._waiting: list[tuple[float, int, int, float]] = []
        self._pace = Pace(self._ring, is_replayed=True)  # type: ignore[arg-type]
        self._seen = 0

    def run(self) -> float:
        """The share of the way from a choice by chance to the best one, over the visits that count."""
        count, now, ticked, done = self.scenario.visits, 0.0, 0.0, 0
        while done < count:
            now += _LOOK
            until = min(count, int(now * self.scenario.rate + 1e-9))
            self._visit(done, until)
            done = until
            self._complete(now)
            if now - ticked >= CONFIG.training_interval - 1e-9 or self._pace.is_early():
                ticked = now
                self._tick()
        return self.visits.share(self.earned, self.scenario.counted(count))

    def _visit(self, begin: int, end: int) -> None:
        if end == begin:
            return
        x = self.visits.x[begin:end]
        with torch.no_grad():
            logits = self.model(torch.from_numpy(x.astype(np.float32)))[0].double()
        chances = torch.softmax(logits, dim=1).numpy().cumsum(axis=1)
        chosen = (chances < self.rng.random(len(x))[:, None] * chances[:, -1:]).sum(axis=1)
        for number, choice in enumerate(chosen.tolist(), begin):
            self.earned[number] = self.visits.chances[number, choice]
            reward = float(self.visits.luck[number] < self.earned[number])
            is_told = bool(reward) or not self.scenario.successes_only
            wait = self.visits.delays[number] if is_told else self.scenario.timeout
            heapq.heappush(self._waiting, (number / self.scenario.rate + wait, number, choice, reward))

    def _complete(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            _, number, choice, reward = heapq.heappop(self._waiting)
            self._ring.append(self.visits.x[number], choice, reward)

    def _tick(self) -> None:
        ring = self._ring
        new, self._seen = ring.head - self._seen, ring.head
        steps, size = self._pace.plan(CONFIG)
        if len(ring) < CONFIG.min_batch_size:
            return
        if new:
            self.learner.observe(ring.batch(np.arange(max(0, len(ring) - new), len(ring))))
        for _ in range(steps):
            self.learner.experiences = len(ring)
            self.learner.step(ring.batch(self._draw(self.rng, len(ring), size)))
