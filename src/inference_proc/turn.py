"""A turn: one request on its way to a decision, from what the host passed to what is recorded."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..shared.actions.offer import Choices, Offer, OfferReader
from ..shared.application import Application, Verdict
from ..shared.features import FeatureEncoder
from ..shared.values import as_text, described, id_hash
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


# Many attributes: the list of all that is known of one request.
class Turn:
    """One request, and what is known of it so far. Every step of a decision fills in its part.

    `remembered` is what the key's last decision left, `last_components` those of the reward that this observation
    brought it (None: it brought none). `is_single`: the key was made up for this turn. `request` is the hash of the
    request's id (0: it has none), `rival` the entry of the decision with which another process answered it meanwhile.
    `features` are float32[F], nobody else's memory; `result` is what the host gets or what is raised. `choices` are
    what the host allows, as it says so, and `offer` what that comes to (None: everything).
    """

    __slots__ = (
        "choices",
        "context",
        "draw",
        "features",
        "is_single",
        "key",
        "last_components",
        "observation",
        "offer",
        "remembered",
        "request",
        "result",
        "rival",
        "series",
        "territory_id",
        "ticket",
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

    def __init__(self, key: str, observation: Any, territory_id: str, is_single: bool = False) -> None:
        self.choices: Choices | None = None
        self.offer: Offer | None = None
        self.key = key
        self.observation = observation
        self.territory_id = territory_id
        self.is_single = is_single
        self.request = 0
        self.series = self.ticket = 0
        self.rival: np.void | None = None
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
            series=self.series,
            ticket=self.ticket,
            labels=() if self.offer is None else self.offer.labels(self.draw.action),
        )


class DecideRequest(NamedTuple):
    """What `Engine.decide_many` is asked: a plain tuple of the first three does as well, also with Choices behind them.

    Without a key (None) the decision gets one of its own, and is found again by its id. While its decision waits, a
    request with the same `request_id` gets the same decision. `choices` are what is allowed, if not everything is.
    """

    key: str | None
    observation: Any
    territory_id: str = ""
    request_id: str | None = None
    choices: Choices | None = None


def make_turn(key: Any, observation: Any, territory_id: Any, request_id: Any = None) -> Turn:
    """A turn at its start. Raises ValueError unless key, territory and id are texts; an empty territory or None is the
    key.
    """
    is_single = key is None
    if is_single:
        key = secrets.token_hex(12)
    elif type(key) is not str:
        key = as_text("key", key)
    if type(territory_id) is not str and territory_id is not None:
        territory_id = as_text("territory_id", territory_id)
    turn = Turn(key, observation, territory_id or key, is_single)
    if request_id is not None:
        turn.request = id_hash(as_text("request_id", request_id))
    return turn


def as_turn(request: Any) -> Turn:
    """The turn of a DecideRequest, or of (key, observation, territory_id) with Choices behind them if it has any.

    Raises ValueError as `make_turn`, or if it is none.
    """
    request_id = choices = None
    try:
        if len(request) == 3:
            key, observation, territory_id = request
        elif len(request) == 4 and isinstance(request[3], Choices):
            key, observation, territory_id, choices = request
        else:
            key, observation, territory_id, request_id, choices = (*request, None) if len(request) == 4 else request
        if choices is not None and not isinstance(choices, Choices):
            raise TypeError
    except Exception:
        raise ValueError(
            f"request: {described(request)}; it must be (key, observation, territory_id), and if it allows less than"
            " everything a Choices behind them"
        ) from None
    turn = make_turn(key, observation, territory_id, request_id)
    turn.choices = choices
    return turn


class TurnEncoder:
    """Makes what the model is given out of what the host passed: features and, where there are any, candidates."""

    def __init__(self, application: Application) -> None:
        self._features = FeatureEncoder(application.encode, application.features)
        self._offers = OfferReader(application.heads)
        self._width, self._inputs = self._features.width, application.inputs

    def encode(self, turns: Sequence[Turn]) -> tuple[list[Turn], NDArray[np.float32]]:
        """The turns that can be encoded, and their inputs float32[B, F and more]; the others get their exception."""
        inputs = np.empty((len(turns), self._inputs), np.float32)
        encoded: list[Turn] = []
        for turn in turns:
            try:
                self.write(turn, inputs[len(encoded)])
            except Exception as error:
                turn.result = error
            else:
                encoded.append(turn)
        return encoded, inputs if len(encoded) == len(inputs) else inputs[: len(encoded)]

    def write(self, turn: Turn, row: NDArray[np.float32]) -> None:
        """Encode one turn into `row`, whose beginning are its features. Raises ValueError and what `encode` raises."""
        turn.features = row if self._width == self._inputs else row[: self._width]
        self._features.write(turn.observation, turn.features)
        if turn.choices is not None or self._offers.is_needed:
            offer = turn.offer = self._offers.read(turn.choices)
            if offer is not None and offer.inputs is not None:
                row[self._width :] = offer.inputs


def as_action(action: Any, is_number: bool = False) -> tuple[int, ...]:
    """An action that the host names, as the engine draws them. Raises ValueError unless it is whole numbers, or one
    number of any kind if that `is_number`.
    """
    try:
        if is_number:
            (number,) = action
            return (float(number),)  # type: ignore[return-value]
        return tuple([index(choice) for choice in action])
    except Exception:
        raise ValueError(f"action: {described(action)}; it must be the choices that were decided, as (3, 1)") from None


def without_repetition(turns: Sequence[Turn]) -> Iterator[Sequence[Turn]]:
    """The turns in their order, in stretches in which no key and no request comes twice."""
    if len(turns) < 2:
        yield turns
        return
    stretch: list[Turn] = []
    names: set[str | int] = set()
    for turn in turns:
        if turn.key in names or turn.request in names:
            yield stretch
            stretch, names = [], set()
        stretch.append(turn)
        names.add(turn.key)
        if turn.request:
            names.add(turn.request)
    yield stretch
