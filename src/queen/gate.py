"""The simulation gate: estimates what a spawn would bring and says SEND or WAIT.

The expected reward of spawning type t in chunk c is w1 S + w2 D + w3 L + E: survival, disruption, location,
exploration. It is -inf if the queen cannot pay, and is let through only if it is above the threshold.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..shared.application import Verdict
from .exploration import Exploration, annealed
from .features import ConfigSource
from .game_clock import GameClock
from .gate_config import GateConfig, GateConfigFile
from .gate_statistics import GateStatistics
from .observation import Observation, as_observation

COMPONENTS: tuple[str, ...] = ("survival", "disruption", "location", "exploration")
GATE_DISABLED = "gate_disabled"
INSUFFICIENT_ENERGY = "insufficient_energy"
POSITIVE_REWARD = "positive_reward"
NEGATIVE_REWARD = "negative_reward"

_TOLERANCE = 1e-9
"""In floats 0.4 + 0.2 is above 0.6: a reward equal to the threshold must wait all the same."""


@dataclass(frozen=True)
class Verdicts:
    """The evaluation of many candidates; every array is float64 or bool of shape [M]."""

    send: NDArray[np.bool_]
    affordable: NDArray[np.bool_]
    expected_reward: NDArray[np.float64]
    survival: NDArray[np.float64]
    disruption: NDArray[np.float64]
    location: NDArray[np.float64]
    exploration: NDArray[np.float64]


class _Tables:
    """What depends on the configuration and a distance only, by |dx| * axis + |dz|."""

    def __init__(self, config: GateConfig) -> None:
        axis = config.chunks_per_axis
        self.config = config
        self.column = [chunk % axis for chunk in range(config.chunks)]
        self.row = [chunk // axis for chunk in range(config.chunks)]
        self.distance = [math.sqrt(dx * dx + dz * dz) for dx in range(axis) for dz in range(axis)]
        self.keep = [1.0 - _threat(config, distance) for distance in self.distance]
        self.scare = [_scare(config, distance) for distance in self.distance]
        # A grid of one chunk has no distances to divide by.
        self.scale = 1.0 / config.max_chunk_distance if axis > 1 else 0.0
        self.columns = np.array(self.column)
        self.rows = np.array(self.row)
        self.distances = np.array(self.distance)
        self.keeps = np.array(self.keep)
        self.scares = np.array(self.scare)

    def offsets(self, places: NDArray[np.int64], chunks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Table indices int64[P, M] of the distances from P places to M chunks."""
        across = np.abs(self.columns[places][:, None] - self.columns[chunks])
        along = np.abs(self.rows[places][:, None] - self.rows[chunks])
        indices: NDArray[np.int64] = across * self.config.chunks_per_axis + along
        return indices


def _threat(config: GateConfig, distance: float) -> float:
    if distance < config.kill_range:
        return 1.0
    if distance >= config.safe_range:
        return 0.0
    return math.exp(-config.threat_decay * (distance - config.kill_range))


def _scare(config: GateConfig, distance: float) -> float:
    if distance < config.flee_range:
        return 1.0
    if distance > config.ignore_range:
        return 0.0
    return math.exp(-config.disruption_decay * (distance - config.flee_range))


class SimulationGate:
    """Evaluates spawns; holds exploration state for each key, and statistics.

    `evaluate` is the fast path for one candidate, `evaluate_many` the vectorised one without any record.
    Both compute the same numbers. `speed` is how many times faster than real the game is played (None: found, see
    GameClock): chunks are fresh again so much sooner. Safe for threads: a short process-local lock guards the state.
    """

    components = COMPONENTS

    def __init__(
        self,
        source: ConfigSource,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = 1024,
        speed: float | None = 1.0,
    ) -> None:
        self._source = source
        self._poll = source.poll if isinstance(source, GateConfigFile) else None
        self._time = GameClock(clock, speed, max_keys)
        self._lock = threading.Lock()
        self._tables = _Tables(source.current)
        self._exploration = Exploration(source.current.chunks, max_keys)
        self._statistics = GateStatistics(COMPONENTS, clock)

    def evaluate(self, observation: Any, action: tuple[int, ...], key: Hashable, version: int) -> Verdict:
        """Evaluate spawning type `action[1]` in chunk `action[0]`; counts the verdict in the statistics."""
        seen = observation if type(observation) is Observation else as_observation(observation)
        tables = self._current_tables()
        config = tables.config
        with self._lock:
            now = self._time.observed(key)
        if not config.gate_enabled:
            verdict = Verdict(True, GATE_DISABLED, 0.0)
        else:
            chunk, kind = action[0], action[1]
            survival, disruption, location = _estimate(seen, chunk, kind, tables)
            exploration = 0.0
            if 0 <= chunk < config.chunks:
                exploration = annealed(config, version) * self._exploration.freshness(
                    key, chunk, config.exploration_max_time, now
                )
            parts = (survival, disruption, location, exploration)
            if seen.queen_energy < config.cost(kind):
                verdict = Verdict(False, INSUFFICIENT_ENERGY, -math.inf, parts)
            else:
                expected = (
                    config.survival_weight * survival
                    + config.disruption_weight * disruption
                    + config.location_weight * location
                    + exploration
                )
                send = expected > config.reward_threshold + _TOLERANCE
                verdict = Verdict(send, POSITIVE_REWARD if send else NEGATIVE_REWARD, expected, parts)
        with self._lock:
            self._statistics.record(verdict)
        return verdict

    # Long: one formula from top to bottom.
    def evaluate_many(
        self, observation: Any, chunks: Sequence[int], types: Sequence[int], key: Hashable = None, version: int = 0
    ) -> Verdicts:
        """Evaluate M candidates at once, as `evaluate` would, without counting them.

        `chunks` and `types` are integer sequences or arrays of shape [M].
        """
        seen = observation if type(observation) is Observation else as_observation(observation)
        tables = self._current_tables()
        config = tables.config
        wanted = np.asarray(chunks, dtype=np.int64)
        combat = np.asarray(types, dtype=np.int64) != 0
        if not config.gate_enabled:
            nothing = np.zeros(wanted.shape)
            yes = np.ones(wanted.shape, dtype=np.bool_)
            return Verdicts(yes, yes, nothing, nothing, nothing, nothing, nothing)
        valid = (wanted >= 0) & (wanted < config.chunks)
        # Candidates share chunks (two types each): distances are computed once for each chunk.
        places, inverse = np.unique(np.where(valid, wanted, 0), return_inverse=True)
        survival, energy, hunt, location = _estimate_many(seen, places, tables)
        survival = np.where(valid, survival[inverse], 0.0)
        disruption = np.where(valid, np.where(combat, hunt[inverse], energy[inverse]), 0.0)
        location = np.where(valid, location[inverse], -1.0)
        fresh = np.ones(places.shape)
        with self._lock:
            last = dict(self._exploration.last_spawns(key))
            now = self._time.now()
        if last:
            times = np.array([last.get(place, -math.inf) for place in places.tolist()])
            fresh = np.clip((now - times) / config.exploration_max_time, 0.0, 1.0)
        exploration = np.where(valid, annealed(config, version) * fresh[inverse], 0.0)
        costs = np.where(combat, config.combat_parasite_cost, config.energy_parasite_cost)
        affordable = seen.queen_energy >= costs
        expected = (
            config.survival_weight * survival
            + config.disruption_weight * disruption
            + config.location_weight * location
            + exploration
        )
        expected = np.where(affordable, expected, -math.inf)
        send = expected > config.reward_threshold + _TOLERANCE
        return Verdicts(send, affordable, expected, survival, disruption, location, exploration)

    def sent(self, key: Hashable, action: tuple[int, ...]) -> None:
        """The spawn was let through: its chunk counts as explored from now on."""
        with self._lock:
            self._exploration.spawned(key, action[0], self._time.now())
            self._statistics.acted()

    def failed(self, key: Hashable, action: tuple[int, ...]) -> None:
        """The spawn that was sent last could not be executed: its chunk is as unexplored as before."""
        with self._lock:
            self._exploration.undo(key, action[0])

    def rewarded(self, reward: float) -> None:
        """Add an actual reward to the lifetime statistics."""
        with self._lock:
            self._statistics.rewarded(reward)

    def forget(self, key: Hashable) -> None:
        """Drop the exploration state of `key`."""
        with self._lock:
            self._exploration.forget(key)

    def statistics(self) -> dict[str, Any]:
        """`exploration`, `metrics` (`lifetime`, `rolling`, `recent`) and `thinking_loop`, ready for JSON."""
        with self._lock:
            return {
                "exploration": self._exploration.statistics(),
                "metrics": self._statistics.metrics(),
                "thinking_loop": self._statistics.thinking_loop(),
            }

    def clear(self) -> None:
        """Forget every key's exploration state and all statistics."""
        with self._lock:
            self._exploration.clear()
            self._statistics.clear()

    def _current_tables(self) -> _Tables:
        if self._poll is not None:
            self._poll()
        tables = self._tables
        config = self._source.current
        if tables.config is not config:
            tables = self._tables = _Tables(config)
        return tables


# Long: the hot loop of every decision; calls between its three figures would cost more than they hold.
def _estimate(seen: Observation, chunk: int, kind: int, tables: _Tables) -> tuple[float, float, float]:
    """Survival, disruption and location of one candidate."""
    config = tables.config
    chunks = config.chunks
    if not 0 <= chunk < chunks:
        return 0.0, 0.0, -1.0
    axis, columns, rows, distances = config.chunks_per_axis, tables.column, tables.row, tables.distance
    column, row = columns[chunk], rows[chunk]
    keep = tables.keep
    pursuit = config.combat_pursuit_range if kind else config.energy_pursuit_range
    guard = config.combat_pursuit_range if kind else config.protector_attack_range
    survival = 1.0
    protectors = guards = 0
    for place in seen.protectors:
        if 0 <= place < chunks:
            offset = abs(column - columns[place]) * axis + abs(row - rows[place])
            protectors += 1
            survival *= keep[offset]
            if distances[offset] < guard:
                guards += 1
    workers = prey = 0
    nearest = math.inf
    scared = 0.0
    decay = config.disruption_mode == "decay"
    for place in seen.present:
        if 0 <= place < chunks:
            offset = abs(column - columns[place]) * axis + abs(row - rows[place])
            workers += 1
            distance = distances[offset]
            if distance < pursuit:
                prey += 1
            if distance < nearest:
                nearest = distance
            if decay:
                scared += tables.scare[offset]
    if decay:
        disruption = survival * scared
    elif kind:
        disruption = (prey + guards) / (workers + protectors) if workers + protectors else 0.0
    else:
        disruption = max(-1.0, (prey - guards) / workers) if workers else 0.0
    if workers:
        location = -config.worker_proximity_weight * min(1.0, nearest * tables.scale)
    elif 0 <= seen.hive < chunks:
        far = distances[abs(column - columns[seen.hive]) * axis + abs(row - rows[seen.hive])]
        location = -config.hive_proximity_weight * min(1.0, far * tables.scale)
    else:
        location = 0.0
    return survival, disruption, location


def _estimate_many(
    seen: Observation, places: NDArray[np.int64], tables: _Tables
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Survival, disruption by energy parasites, disruption by combat parasites and location, float64[M] each."""
    config = tables.config
    chunks = config.chunks
    size = places.shape
    guards, guard_counts = _places(seen.protectors, chunks)
    workers, worker_counts = _places(seen.present, chunks)
    protector_total, worker_total = int(guard_counts.sum()), int(worker_counts.sum())
    survival = np.ones(size)
    guarding = hunted = np.zeros(size, dtype=np.int64)
    if protector_total:
        offsets = tables.offsets(guards, places)
        survival = np.prod(tables.keeps[offsets] ** guard_counts[:, None], axis=0)
        distances = tables.distances[offsets]
        guarding = guard_counts @ (distances < config.protector_attack_range)
        hunted = guard_counts @ (distances < config.combat_pursuit_range)
    prey = hunt = np.zeros(size, dtype=np.int64)
    scared = np.zeros(size)
    location = np.zeros(size)
    if worker_total:
        offsets = tables.offsets(workers, places)
        distances = tables.distances[offsets]
        prey = worker_counts @ (distances < config.energy_pursuit_range)
        hunt = worker_counts @ (distances < config.combat_pursuit_range)
        scared = worker_counts @ tables.scares[offsets]
        location = -config.worker_proximity_weight * np.minimum(1.0, distances.min(axis=0) * tables.scale)
    elif 0 <= seen.hive < chunks:
        distances = tables.distances[tables.offsets(np.array([seen.hive]), places)[0]]
        location = -config.hive_proximity_weight * np.minimum(1.0, distances * tables.scale)
    if config.disruption_mode == "decay":
        return survival, survival * scared, survival * scared, location
    energy = np.maximum(-1.0, (prey - guarding) / worker_total) if worker_total else np.zeros(size)
    both = worker_total + protector_total
    combat = (hunt + hunted) / both if both else np.zeros(size)
    return survival, energy, combat, location


def _places(chunk_ids: list[int], chunks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different valid chunks of a list and how often each occurs."""
    valid = [chunk for chunk in chunk_ids if 0 <= chunk < chunks]
    return np.unique(np.array(valid, dtype=np.int64), return_counts=True)
