"""A decision, as the host gets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..shared.application import Verdict
from ..shared.ids.decision_id import DecisionId
from ..shared.values import FLOAT32_TINY
from .policy import Draw, log_probability


# Many attributes: the columns of an answer.
@dataclass(frozen=True, slots=True)
class Decision:
    """What the engine decided for one observation.

    `probability` is that of the whole action, `head_probabilities` of each choice, `confidence` of the first.
    `expected_reward` may be -inf. `version` is the model version that decided. `last_reward` is the actual reward of
    the key's previous decision (None for the first), `recent_rewards` the last ten of the key, oldest first.
    `labels` has the id of the candidate that was chosen, where there are candidates; `action` has one float where a
    number is drawn (GaussianHead), and `probability` is its density then.
    """

    key: str
    action: tuple[int, ...]
    probability: float
    head_probabilities: tuple[float, ...]
    confidence: float
    send: bool
    reason: str
    expected_reward: float
    components: tuple[float, ...]
    version: int
    timestamp: float
    last_reward: float | None = None
    last_components: dict[str, float] | None = None
    recent_rewards: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    series: int = 0
    ticket: int = 0

    @property
    def recorded_probability(self) -> float:
        """`probability` as the record holds it: rounded to 32 bits, so that it is the same whenever it is asked for."""
        return float(np.float32(max(self.probability, FLOAT32_TINY)))

    @property
    def id(self) -> str:
        """The decision's name for ever, for `Engine.reward_decision`; empty for one that could not be recorded."""
        return str(DecisionId(self.series, self.ticket)) if self.ticket else ""

    @property
    def log_probability(self) -> float:
        """Natural logarithm of `probability`, exact where the product of many heads' probabilities rounds to 0."""
        return log_probability(self.head_probabilities)

    @classmethod
    def of(cls, key: str, draw: Draw, verdict: Verdict, version: int, timestamp: float, **rewards: Any) -> Decision:
        """A decision from what was drawn and what the gate said of it; `rewards` are the fields about the past."""
        return cls(
            key=key,
            action=draw.action,
            probability=draw.probability,
            head_probabilities=draw.head_probabilities,
            confidence=draw.head_probabilities[0],
            send=verdict.send,
            reason=verdict.reason,
            expected_reward=verdict.expected_reward,
            components=verdict.components,
            version=version,
            timestamp=timestamp,
            **rewards,
        )
