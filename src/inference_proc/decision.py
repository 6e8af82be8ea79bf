"""A decision, as the host gets it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decision:
    """What the engine decided for one observation.

    `probability` is that of the whole action, `head_probabilities` of each choice, `confidence` of the first.
    `expected_reward` may be -inf. `version` is the model version that decided. `last_reward` is the actual reward of
    the key's previous decision (None for the first), `recent_rewards` the last ten of the key, oldest first.
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
