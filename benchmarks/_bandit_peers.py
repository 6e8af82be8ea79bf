"""What bandits.py compares with: LinUCB, and three explorations of Vowpal Wabbit.

They see standardised features and learn from every reward before the next decision. They run in processes of their own,
before Tandem plays, so that they take no time from its decisions.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from _bandit_sets import Classes
from numpy.typing import NDArray

VW = "--cb_explore_adf -q sa --ignore_linear s --noconstant --quiet"
EXPLORATIONS = {
    "vw-squarecb": "--squarecb",
    "vw-epsilon": "--epsilon 0.05",
    "vw-regcbopt": "--regcbopt --cb_min_cost -1 --cb_max_cost 0",
}
PEERS = ("linucb", *EXPLORATIONS)


class Peer(Protocol):
    """Decides, and learns from the reward of what it decided."""

    def decide(self, x: NDArray[np.float64]) -> int:
        """A choice for float64[F]."""

    def learn(self, x: NDArray[np.float64], choice: int, reward: float) -> None:
        """The reward of the choice that was made last."""


class LinUCB:
    """Disjoint LinUCB (Li et al., 2010): a ridge regression for each choice, and a bonus for what it does not know."""

    def __init__(self, features: int, choices: int, seed: int, alpha: float = 0.3) -> None:
        self.alpha = alpha
        self.inverse = np.tile(np.eye(features + 1), (choices, 1, 1))
        self.moment = np.zeros((choices, features + 1))
        self.weights = np.zeros((choices, features + 1))
        self.rng = np.random.default_rng(seed)

    def decide(self, x: NDArray[np.float64]) -> int:
        """The choice with the highest upper bound; ties are broken by chance."""
        z = np.append(x, 1.0)
        bound = self.weights @ z + self.alpha * np.sqrt(np.maximum(self.inverse @ z @ z, 0.0))
        return int(self.rng.choice(np.flatnonzero(bound == bound.max())))

    def learn(self, x: NDArray[np.float64], choice: int, reward: float) -> None:
        """Sherman-Morrison."""
        z = np.append(x, 1.0)
        direction = self.inverse[choice] @ z
        self.inverse[choice] -= np.outer(direction, direction) / (1.0 + direction @ z)
        self.moment[choice] += reward * z
        self.weights[choice] = self.inverse[choice] @ self.moment[choice]


class VowpalWabbit:
    """One exploration of Vowpal Wabbit; a cost is the reward with the other sign."""

    def __init__(self, choices: int, seed: int, exploration: str) -> None:
        from vowpalwabbit import Workspace

        self.workspace = Workspace(f"{VW} {exploration} --random_seed {seed + 1}")
        self.actions = [f"|a c{choice}" for choice in range(choices)]
        self.rng = np.random.default_rng(seed)
        self.asked: tuple[str, float] = ("", 1.0)

    def decide(self, x: NDArray[np.float64]) -> int:
        """Drawn from the probabilities that it gives."""
        shared = "shared |s " + " ".join([f"{index}:{value:.6g}" for index, value in enumerate(x.tolist())])
        probabilities = np.asarray(self.workspace.predict([shared, *self.actions]), np.float64)
        choice = int(self.rng.choice(len(probabilities), p=probabilities / probabilities.sum()))
        self.asked = shared, float(probabilities[choice])
        return choice

    def learn(self, x: NDArray[np.float64], choice: int, reward: float) -> None:
        """The cost stands before the action that was taken."""
        shared, probability = self.asked
        examples = [shared, *self.actions]
        examples[choice + 1] = f"0:{-reward:g}:{probability:g} {self.actions[choice]}"
        self.workspace.learn(examples)


def available() -> dict[str, str]:
    """Every peer with the package that it lacks; an empty text if it can play."""
    lacks = "" if find_spec("vowpalwabbit") is not None else "vowpalwabbit"
    return {"linucb": "", **dict.fromkeys(EXPLORATIONS, lacks)}


def make(name: str, features: int, choices: int, seed: int) -> Peer:
    """A peer that knows nothing yet."""
    if name == "linucb":
        return LinUCB(features, choices, seed)
    return VowpalWabbit(choices, seed, EXPLORATIONS[name])


def play(job: tuple[str, Classes, int, int]) -> NDArray[np.uint8]:
    """The rewards of one peer over one pass of (peer, set, seed, most decisions)."""
    name, classes, seed, limit = job
    order = classes.order(seed, limit)
    peer = make(name, classes.x.shape[1], classes.choices, seed)
    rewards = np.zeros(len(order), np.uint8)
    for number, row in enumerate(order):
        x = classes.standardised[row]
        choice = peer.decide(x)
        rewards[number] = choice == classes.y[row]
        peer.learn(x, choice, float(rewards[number]))
    return rewards


def pool_of(processes: int, begin: Callable[[], None] | None = None) -> Any:
    """Processes, each of which computes with one thread and calls `begin` first."""
    import multiprocessing
    import os

    # Spawned processes read these when they load numpy: the cores are shared out among processes, not threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return multiprocessing.get_context("spawn").Pool(processes, begin)
