"""Made-up logs of decisions whose truth is known: one head, rewards of 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tandem.evaluation.decisions import LoggedDecisions


@dataclass(frozen=True)
class TableWorld:
    """C contexts, one feature each, K actions: `chances` float64[C, K] of a reward of 1, `logging` float64[C, K]."""

    chances: Any
    logging: Any

    @classmethod
    def drawn(cls, seed: int, contexts: int = 8, choices: int = 5, rate: float = 0.2) -> TableWorld:
        """A world with a logging policy that explores a tenth of the time."""
        generator = np.random.default_rng(seed)
        chances = np.clip(rate * np.exp(generator.normal(0.0, 0.7, (contexts, choices))), 0.0, 0.95)
        sharp = np.exp(generator.normal(0.0, 1.0, (contexts, choices)))
        return cls(chances, 0.9 * sharp / sharp.sum(axis=1, keepdims=True) + 0.1 / choices)

    def log(self, count: int, seed: int) -> LoggedDecisions:
        """`count` decisions of the logging policy, a second apart."""
        generator = np.random.default_rng(seed)
        contexts, choices = self.chances.shape
        context = generator.integers(contexts, size=count)
        drawn = (self.logging[context].cumsum(axis=1) < generator.random(count)[:, np.newaxis]).sum(axis=1)
        actions = np.minimum(drawn, choices - 1)
        return LoggedDecisions(
            observations=np.eye(contexts, dtype=np.float32)[context],
            actions=actions[:, np.newaxis],
            propensities=self.logging[context, actions],
            rewards=(generator.random(count) < self.chances[context, actions]).astype(float),
            sent=np.ones(count, bool),
            timestamps=1.7e9 + np.arange(count),
            sizes=(choices,),
        )

    def truth(self, policy: TablePolicy) -> float:
        """What a policy earns on average."""
        return float((policy.table * self.chances).sum(axis=1).mean())


class TablePolicy:
    """Probabilities float64[C, K] by context."""

    def __init__(self, table: Any, name: str = "new") -> None:
        self.table = np.asarray(table, np.float64)
        self.name = name

    def head_probabilities(self, observations: Any) -> list[Any]:
        """See `target_policy.Target`."""
        return [self.table[observations.argmax(axis=1)]]


def greedy(world: TableWorld, share: float = 0.9, name: str = "greedy") -> TablePolicy:
    """The best action of each context with this probability, and the others alike."""
    contexts, choices = world.chances.shape
    table = np.full((contexts, choices), (1.0 - share) / (choices - 1))
    table[np.arange(contexts), world.chances.argmax(axis=1)] = share
    return TablePolicy(table, name)


def gated(log: LoggedDecisions, blocked: int) -> LoggedDecisions:
    """The same log with a gate that holds every decision for one action back: those have no reward."""
    sent = log.actions[:, 0] != blocked
    return replace(log, sent=sent, rewards=np.where(sent, log.rewards, np.nan))
