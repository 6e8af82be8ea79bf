"""The Queen's view of an observation: the `data` of an `observation_data` frame, checked and reduced to what counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..shared.errors import TandemError

ENERGY = 0
COMBAT = 1
SPAWN_TYPES = ("energy", "combat")
NOWHERE = -1
"""The chunk of an entity that counts for totals and is placed nowhere."""

_CHUNK_LIMIT = 1 << 31
_LARGEST = 3.4e38


class ObservationError(TandemError, ValueError):
    """An observation lacks the required field `field`, or the field has the wrong type."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"{field}: {message}")


class Observation(msgspec.Struct, frozen=True, gc=False):
    """What decisions and rewards read of one observation.

    Chunk ids keep their multiplicity; -1 stands for "placed nowhere". An id may lie beyond the grid: whoever
    places an entity checks `0 <= id < chunks`. Parasites are pairs of chunk id and type (0 energy, 1 combat).
    """

    territory_id: str
    timestamp: float
    mining: list[int]
    present: list[int]
    protectors: list[int]
    parasites_start: list[tuple[int, int]]
    parasites_end: list[tuple[int, int]]
    queen_energy: float
    energy_start: float
    energy_end: float
    minerals_start: float
    minerals_end: float
    hive: int


def rate(start: float, end: float) -> float:
    """The relative change from `start` to `end`: (end - start) / max of both, -1..1, and 0 if neither is positive."""
    most = start if start > end else end
    if most <= 0.0:
        return 0.0
    change = (end - start) / most
    return -1.0 if change < -1.0 else 1.0 if change > 1.0 else change


# Long: one check for each field of the message, in its order.
def parse_observation(data: Mapping[str, Any]) -> Observation:
    """Check the `data` object of an `observation_data` frame, in the browser's or the simulator's dialect.

    Entities are never refused: a bad one counts in the total and gets chunk -1. Numbers that are missing, not
    finite as float32 or not numbers count as 0. An optional field of the wrong type counts as absent.

    Raises ObservationError naming the first required field that is missing or has the wrong type.
    """
    timestamp = data.get("timestamp")
    if type(timestamp) is not float and type(timestamp) is not int:
        raise _refused(data, "timestamp", "a number")
    mining = data.get("miningWorkers")
    if not isinstance(mining, list):
        raise _refused(data, "miningWorkers", "an array")
    protectors = data.get("protectors")
    if not isinstance(protectors, list):
        raise _refused(data, "protectors", "an array")
    queen = data.get("queenEnergy")
    if not isinstance(queen, dict):
        raise _refused(data, "queenEnergy", "an object")
    energy = data.get("playerEnergy")
    if not isinstance(energy, dict):
        raise _refused(data, "playerEnergy", "an object")
    territory = data.get("territoryId")
    if not isinstance(territory, str):
        raise _refused(data, "territoryId", "a string")
    minerals = data.get("playerMinerals")
    if not isinstance(minerals, dict):
        minerals = {}
    mining_chunks = _chunks(mining)
    present = data.get("workersPresent")
    start = data.get("parasitesStart")
    end = data.get("parasitesEnd")
    return Observation(
        territory,
        _number(timestamp),
        mining_chunks,
        _chunks(present) if isinstance(present, list) else mining_chunks,
        _chunks(protectors),
        _parasites(start) if isinstance(start, list) else [],
        _parasites(end) if isinstance(end, list) else [],
        _number(queen.get("current")),
        _number(energy.get("start")),
        _number(energy.get("end")),
        _number(minerals.get("start")),
        _number(minerals.get("end")),
        _chunk(data.get("hiveChunk")),
    )


def as_observation(value: Any) -> Observation:
    """`value` itself if it is parsed already, else the result of parsing the mapping `value`.

    Raises ObservationError, as `parse_observation` does, or if `value` is not a mapping.
    """
    if isinstance(value, Observation):
        return value
    if not isinstance(value, Mapping):
        raise ObservationError("data", f"must be an object, not {type(value).__name__}")
    return parse_observation(value)


def _refused(data: Mapping[str, Any], field: str, wanted: str) -> ObservationError:
    if field not in data:
        return ObservationError(field, "is missing")
    return ObservationError(field, f"must be {wanted}, not {type(data[field]).__name__}")


def _number(value: Any) -> float:
    # False for NaN, and exact for whole numbers of any size. Rewards and contexts hold numbers as float32.
    if (type(value) is float or type(value) is int) and -_LARGEST <= value <= _LARGEST:
        return float(value)
    return 0.0


def _chunk(value: Any) -> int:
    # `type is int` also keeps true and false out, which are integers to isinstance.
    return value if type(value) is int and 0 <= value < _CHUNK_LIMIT else NOWHERE


def _chunks(entities: list[Any]) -> list[int]:
    chunks = []
    for entity in entities:
        chunk = entity.get("chunkId") if type(entity) is dict else None
        chunks.append(chunk if type(chunk) is int and 0 <= chunk < _CHUNK_LIMIT else NOWHERE)
    return chunks


def _parasites(entities: list[Any]) -> list[tuple[int, int]]:
    parasites = []
    for entity in entities:
        if type(entity) is dict:
            parasites.append((_chunk(entity.get("chunkId")), COMBAT if entity.get("type") == "combat" else ENERGY))
        else:
            parasites.append((NOWHERE, ENERGY))
    return parasites
