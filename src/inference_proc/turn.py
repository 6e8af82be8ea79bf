"""A turn: one request on its way to a decision, from what the host passed to what is recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from ..shared.values import as_text, described
from .application_hooks import ApplicationHooks
from .recorder import Recorder, Remembered


@dataclass(slots=True)
class Turn:
    """One request: its place among those asked together, and what is known of it so far.

    `remembered` is what the key's last decision left, `last_components` those of the reward that this observation
    brought it (None: it brought none).
    """

    position: int
    key: str
    observation: Any
    territory_id: str
    remembered: Remembered = None  # type: ignore[assignment]
    last_components: dict[str, float] | None = None


def make_turn(position: int, key: Any, observation: Any, territory_id: Any) -> Turn:
    """A turn at its start. Raises ValueError unless key and territory are texts; an empty one or None is the key."""
    if type(key) is not str:
        key = as_text("key", key)
    if type(territory_id) is not str and territory_id is not None:
        territory_id = as_text("territory_id", territory_id)
    return Turn(position, key, observation, territory_id or key)


def as_turn(position: int, request: Any) -> Turn:
    """The turn of a request (key, observation, territory_id). Raises ValueError as `make_turn`, or if it is none."""
    try:
        key, observation, territory_id = request
    except (TypeError, ValueError):
        raise ValueError(f"request: {described(request)}; it must be (key, observation, territory_id)") from None
    return make_turn(position, key, observation, territory_id)


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


def remember(turn: Turn, recorder: Recorder, hooks: ApplicationHooks) -> None:
    """Recall the turn's key, and complete its previous decision with the reward that the turn's observation brings."""
    turn.remembered, evicted = recorder.recall(turn.key)
    if evicted is not None:
        hooks.forget(evicted)
    remembered, context = turn.remembered, turn.remembered.context
    if context is None:
        return
    rewarded = hooks.reward(context, remembered.action, remembered.executed, turn.observation)
    remembered.context = None
    if rewarded is None:
        return
    value, turn.last_components = rewarded
    remembered.rewards.append(value)
    if remembered.executed and recorder.reward(remembered.encoded, value):
        hooks.rewarded(value)
