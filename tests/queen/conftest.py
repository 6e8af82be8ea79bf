"""Observations for the Queen's tests, built the way clients send them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest


def build_data(
    mining: Sequence[int] = (),
    present: Sequence[int] | None = None,
    protectors: Sequence[int] = (),
    queen: float = 100.0,
    hive: int | None = 210,
    energy: tuple[float, float] = (0.0, 0.0),
    minerals: tuple[float, float] = (0.0, 0.0),
    start: Sequence[tuple[int, str]] = (),
    end: Sequence[tuple[int, str]] = (),
) -> dict[str, Any]:
    """The `data` object of a browser's observation."""
    data: dict[str, Any] = {
        "timestamp": 1769000015000,
        "miningWorkers": [{"x": 1.5, "z": -4.0, "chunkId": chunk} for chunk in mining],
        "protectors": [{"x": 1.5, "z": -4.0, "chunkId": chunk} for chunk in protectors],
        "parasitesStart": [{"chunkId": chunk, "type": kind} for chunk, kind in start],
        "parasitesEnd": [{"chunkId": chunk, "type": kind} for chunk, kind in end],
        "queenEnergy": {"current": queen, "max": 100},
        "playerEnergy": {"start": energy[0], "end": energy[1]},
        "playerMinerals": {"start": minerals[0], "end": minerals[1]},
        "territoryId": "territory_0_0",
    }
    if present is not None:
        data["workersPresent"] = [{"x": 1.5, "z": -4.0, "chunkId": chunk} for chunk in present]
    if hive is not None:
        data["hiveChunk"] = hive
    return data


class Clock:
    """A clock that tests set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def observe() -> Callable[..., dict[str, Any]]:
    """Builds the `data` object of a browser's observation."""
    return build_data


@pytest.fixture
def clock() -> Clock:
    """A clock that tests set by hand."""
    return Clock()
