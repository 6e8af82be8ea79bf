"""Made-up logs of decisions whose truth is known: contexts, one action head, rewards in 0..1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tandem.evaluation.log.decisions import LoggedDecisions


class TablePolicy:
    """Probabilities float64[C, K] by context."""

    def __init__(self, table: Any, name: str = "new") -> None:
        self.table = np.asarray(table, np.float64)
        self.name = name

    def head_probabilities(self, observations: Any, allowed: Any = None) -> list[Any]:
        """See `target_policy.Target`."""
        return [self.table[observations.argmax(axis=1)]]


@dataclass(frozen=True)
class TableWorld:
    """C contexts, one feature each, K actions, and what each earns on average: `chances` float64[C, K].

    `logging` float64[C, K] are the logging policy's probabilities; if it `learns`, it moves from chance to these over
    the log. Rewards are 0 or 1, or, if they are `graded`, spread around the average.
    """

    chances: Any
    logging: Any
    learns: bool = False
    graded: bool = False

    @classmethod
    def drawn(cls, seed: int, contexts: int = 8, choices: int = 5, rate: float = 0.2, **kinds: bool) -> TableWorld:
        """A world whose logging policy draws a tenth of its decisions evenly."""
        generator = np.random.default_rng(seed)
        chances = np.clip(rate * np.exp(generator.normal(0.0, 0.7, (contexts, choices))), 0.0, 0.95)
        sharp = np.exp(generator.normal(0.0, 1.0, (contexts, choices)))
        return cls(chances, 0.9 * sharp / sharp.sum(axis=1, keepdims=True) + 0.1 / choices, **kinds)

    def log(self, count: int, seed: int) -> LoggedDecisions:
        """`count` decisions of the logging policy, a second apart."""
        generator = np.random.default_rng(seed)
        contexts, choices = self.chances.shape
        context = generator.integers(contexts, size=count)
        probabilities = self.logging[context]
        if self.learns:
            learned = np.linspace(0.0, 1.0, count)[:, np.newaxis]
            probabilities = learned * probabilities + (1.0 - learned) / choices
        drawn = (probabilities.cumsum(axis=1) < generator.random(count)[:, np.newaxis]).sum(axis=1)
        actions = np.minimum(drawn, choices - 1)
        averages = self.chances[context, actions]
        if self.graded:
            rewards = generator.beta(4.0 * averages, 4.0 * (1.0 - averages))
        else:
            rewards = (generator.random(count) < averages).astype(float)
        return LoggedDecisions(
            observations=np.eye(contexts, dtype=np.float32)[context],
            actions=actions[:, np.newaxis],
            propensities=probabilities[np.arange(count), actions],
            rewards=rewards,
            sent=np.ones(count, bool),
            timestamps=1.7e9 + np.arange(count),
            sizes=(choices,),
        )

    def truth(self, policy: TablePolicy, blocked: int | None = None) -> float:
        """What a policy earns on average, or what its decisions do that a gate lets through."""
        passes = np.ones(self.chances.shape[1])
        if blocked is not None:
            passes[blocked] = 0.0
        let_through = policy.table * passes
        return float((let_through * self.chances).sum() / let_through.sum())

    def logged(self, blocked: int | None = None) -> float:
        """What is logged on average, with `truth`'s meaning of `blocked`."""
        even = np.full_like(self.logging, 1.0 / self.logging.shape[1])
        return self.truth(TablePolicy((self.logging + even) / 2.0 if self.learns else self.logging), blocked)


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
