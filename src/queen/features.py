"""The policy's input: 28 or 29 numbers in 0..1 computed from one observation."""

from __future__ import annotations

import math
import random
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .gate_config import GateConfig
from .observation import COMBAT, Observation, as_observation, rate

SLOTS = 5
SLOT_WIDTH = 5
CAPACITY = SLOTS * SLOT_WIDTH
"""Index of `spawn_capacity_energy`; `spawn_capacity_combat` follows."""
FEATURE_SETS = ("v28", "v29")
QUEEN_ENERGY_MAX = 100.0

_SLOT_NAMES = ("id", "worker_density", "protector_density", "energy_parasite_rate", "combat_parasite_rate")
_MOST = 1e9


class ConfigSource(Protocol):
    """Whatever holds the gate configuration that is in force now."""

    @property
    def current(self) -> GateConfig:
        """The configuration in force."""


def feature_names(feature_set: str = "v28") -> tuple[str, ...]:
    """The names of the features in order; raises ValueError for a feature set that does not exist."""
    if feature_set not in FEATURE_SETS:
        raise ValueError(f"feature_set: {feature_set!r} is not one of {', '.join(FEATURE_SETS)}")
    names = [f"chunk_{slot}_{name}" for slot in range(SLOTS) for name in _SLOT_NAMES]
    names += ["spawn_capacity_energy", "spawn_capacity_combat", "player_energy_rate"]
    if feature_set == "v29":
        names.append("player_mineral_rate")
    return tuple(names)


def capacity(energy: float, cost: float) -> float:
    """The share, 0..1, of the most parasites of this cost that the queen's energy pays for now.

    min(1, floor(energy / cost) / floor(100 / cost)); positive exactly when one is affordable (for costs up to 100).
    """
    most = math.floor(min(QUEEN_ENERGY_MAX / cost, _MOST))
    if most < 1 or energy < cost:
        return 0.0
    return min(1.0, math.floor(min(energy / cost, _MOST)) / most)


class FeatureEncoder:
    """Turns an observation into float32[28] (`v28`) or float32[29] (`v29`).

    The five slots are the chunks with the most mining workers, ties by the lower id. With `presence` they are those
    with the most workers present, and the slots are shuffled, so that slot 0 is not always the busiest.
    Costs and grid come from the gate configuration, so that features and gate always agree on what is affordable.
    """

    def __init__(
        self, source: ConfigSource, feature_set: str = "v28", presence: bool = False, seed: int | None = None
    ) -> None:
        self.names = feature_names(feature_set)
        self._source = source
        self._size = len(self.names)
        self._presence = presence
        self._shuffle = random.Random(seed).shuffle

    def __call__(self, observation: Any) -> NDArray[np.float32]:
        """The features of `observation` (an Observation or its `data` mapping), finite and in 0..1."""
        seen = observation if type(observation) is Observation else as_observation(observation)
        config = self._source.current
        chunks = config.chunks
        workers = seen.present if self._presence else seen.mining
        counts: dict[int, int] = {}
        for chunk in workers:
            if 0 <= chunk < chunks:
                counts[chunk] = counts.get(chunk, 0) + 1
        # One integer orders by count descending, then by id ascending.
        ranked = sorted([chunk - count * chunks for chunk, count in counts.items()])[:SLOTS]
        places = [rank % chunks for rank in ranked]
        slots = list(range(SLOTS))
        if self._presence:
            self._shuffle(slots)
        values = [0.0] * self._size
        last_id = chunks - 1
        protectors = seen.protectors
        parasites = bool(seen.parasites_start or seen.parasites_end)
        for place, slot in zip(places, slots, strict=False):
            base = slot * SLOT_WIDTH
            values[base] = place / last_id if last_id else 0.0
            values[base + 1] = counts[place] / len(workers)
            if protectors:
                values[base + 2] = protectors.count(place) / len(protectors)
            if parasites:
                energy, combat = _parasite_rates(seen, place)
                values[base + 3] = energy
                values[base + 4] = combat
            else:
                values[base + 3] = 0.5
                values[base + 4] = 0.5
        values[CAPACITY] = capacity(seen.queen_energy, config.energy_parasite_cost)
        values[CAPACITY + 1] = capacity(seen.queen_energy, config.combat_parasite_cost)
        values[CAPACITY + 2] = (rate(seen.energy_start, seen.energy_end) + 1.0) * 0.5
        if self._size > CAPACITY + 3:
            values[CAPACITY + 3] = (rate(seen.minerals_start, seen.minerals_end) + 1.0) * 0.5
        return np.array(values, dtype=np.float32)


def _parasite_rates(seen: Observation, place: int) -> tuple[float, float]:
    counts = [0, 0, 0, 0]
    for chunk, kind in seen.parasites_start:
        if chunk == place:
            counts[2 if kind == COMBAT else 0] += 1
    for chunk, kind in seen.parasites_end:
        if chunk == place:
            counts[3 if kind == COMBAT else 1] += 1
    return (rate(counts[0], counts[1]) + 1.0) * 0.5, (rate(counts[2], counts[3]) + 1.0) * 0.5
