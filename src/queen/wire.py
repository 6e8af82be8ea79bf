"""The game's messages as types: what requests carry in `data`, and what replies do.

An observation is not here: entities in it are never refused, so `observation.py` reads it leniently.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

Generation = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Duration = Annotated[float, msgspec.Meta(ge=0)]
DeathCause = Literal["protector_assault", "worker_infiltration", "coordinated_attack", "energy_depletion", "unknown"]


class SpawnResult(msgspec.Struct):
    """The simulator could not execute a decision. Its keys stand at the top of the frame."""

    success: bool
    spawnChunk: int
    spawnType: Literal["energy", "combat"]


class ResetNn(msgspec.Struct):
    """Nothing happens without `confirm`."""

    confirm: bool = False


class Reconnect(msgspec.Struct):
    """The id under which the client was known."""

    clientId: Name


class Place(msgspec.Struct):
    """World units."""

    x: float
    y: float
    z: float


class QueenDeath(msgspec.Struct):
    """A queen died."""

    queenId: Name
    generation: Generation
    deathLocation: Place
    deathCause: DeathCause


class QueenSuccess(msgspec.Struct):
    """A queen survived; `survivalTime` in seconds."""

    queenId: Name
    generation: Generation
    survivalTime: Duration


class GameOutcome(msgspec.Struct):
    """A game ended; `survival_time` in seconds."""

    player_won: bool
    survival_time: Duration


class LearningProgress(msgspec.Struct):
    """Whose progress is asked for."""

    queenId: Name


class SpawnDecision(msgspec.Struct):
    """Spawn this. Sent only if it must be executed."""

    spawnChunk: int
    spawnType: str
    confidence: float
    typeConfidence: float
    territoryId: str
    gateReason: str
    expectedReward: float
    modelVersion: int
    skip: bool = False
    gateDecision: str = "SEND"
    lastReward: float | UnsetType = UNSET
    rewardTrend: str | UnsetType = UNSET


class NoAction(msgspec.Struct):
    """The gate said WAIT. An expected reward of -inf is written as null."""

    territoryId: str
    reason: str
    gateReason: str
    confidence: float
    expectedReward: float
    modelVersion: int
    status: str = "processed"
    action: str = "none"
    gateDecision: str = "WAIT"
    lastReward: float | UnsetType = UNSET
    rewardTrend: str | UnsetType = UNSET


class Pong(msgspec.Struct):
    """`responseTime` in milliseconds; 0 if the request did not carry an epoch time."""

    clientId: str
    requestTimestamp: float | None
    responseTime: float
    messageStats: dict[str, Any]
    serverStatus: str = "healthy"


class TrainingStatus(msgspec.Struct):
    """A summary of the training; `averageLoss` is null before the first step."""

    status: Literal["active", "stopped", "not_available"]
    modelVersion: int
    trainingIterations: int
    averageLoss: float | None
    bufferSize: int
    isRunning: bool
