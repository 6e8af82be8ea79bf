"""A turn: one request on its way to a decision, from what the host passed to what is recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shared.application import Verdict
from ..shared.values import as_text, described
from .decision import Decision
from .policy import Draw


@dataclass(slots=True)
class Remembered:
    """Of a key: its last decision, what its reward will be computed from, and its last ten rewards."""

    encoded: bytes
    rewards: deque[float]
    context: NDArray[Any] | None = None
    action: tuple[int, ...] = ()
    executed: bool = False


class Turn:
    """One request, and what is known of it so far. Every step of a decision fills in its part.

    `remembered` is what the key's last decision left, `last_components` those of the reward that this observation
    brought it (None: it brought none). `features` are float32[F], nobody else's memory; `result` is what the host gets
    or what is raised.
    """

    __slots__ = (
        "context",
        "draw",
        "features",
        "key",
        "last_components",
        "observation",
        "remembered",
        "result",
        "territory_id",
        "timestamp",
        "verdict",
        "version",
    )

    features: NDArray[np.float32]
    remembered: Remembered
    draw: Draw
    version: int
    timestamp: float
    verdict: Verdict
    context: NDArray[Any] | None

    def __init__(self, key: str, observation: Any, territory_id: str) -> None:
        self.key = key
        self.observation = observation
        self.territory_id = territory_id
        self.last_components: dict[str, float] | None = None
        self.result: Decision | Exception | None = None

    def decided(self) -> Decision:
        """The decision, once everything of it is known."""
        rewards = tuple(self.remembered.rewards)
        return Decision.of(
            self.key,
            self.draw,
            self.verdict,
            self.version,
            self.timestamp,
            last_reward=rewards[-1] if self.last_components is not None else None,
            last_components=self.last_components,
            recent_rewards=rewards,
        )


def make_turn(key: Any, observation: Any, territory_id: Any) -> Turn:
    """A turn at its start. Raises ValueError unless key and territory are texts; an empty one or None is the key."""
    if type(key) is not str:
        key = as_text("key", key)
    if type(territory_id) is not str and territory_id is not None:
        territory_id = as_text("territory_id", territory_id)
    return Turn(key, observation, territory_id or key)


def as_turn(request: Any) -> Turn:
    """The turn of a request (key, observation, territory_id). Raises ValueError as `make_turn`, or if it is none."""
    try:
        key, observation, territory_id = request
    except (TypeError, ValueError):
        raise ValueError(f"request: {described(request)}; it must be (key, observation, territory_id)") from None
    return make_turn(key, observation, territory_id)


def as_action(action: Any) -> tuple[int, ...]:
    """An action that the host names, as the engine draws them. Raises ValueError unless it is whole numbers."""
    try:
        return tuple([index(choice) for choice in action])
    except Exception:
        raise ValueError(f"action: {described(action)}; it must be the choices that were decided, as (3, 1)") from None


def without_repetition(turns: Sequence[Turn]) -> Iterator[Sequence[Turn]]:
    """The turns in their order, in stretches in which no key comes twice."""
    if len(turns) < 2:
        yield turns
        return
    stretch: dict[str, Turn] = {}
    for turn in turns:
        if turn.key in stretch:
            yield list(stretch.values())
            stretch = {}
        stretch[turn.key] = turn
    yield list(stretch.values())
