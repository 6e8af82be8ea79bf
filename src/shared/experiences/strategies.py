"""Which experiences a training step sees: strategies that pick positions in the window of readable records."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..configuration.config import ContinuousTrainingConfig
from ..memory.control import Control
from .records import TICKET_BITS, WAIT


@dataclass(frozen=True)
class Window:
    """The records that can be read now: for each lane that has any, its index, first number less one, and count."""

    lanes: tuple[tuple[int, int, int], ...]
    total: int


class Readable(Protocol):
    """What a strategy may ask of the reader that it picks for."""

    control: Control
    capacity: int
    rng: np.random.Generator

    def column(self, window: Window, field: str) -> NDArray[Any]:
        """One field of every record in the window, [total, ...]."""


class Strategy(Protocol):
    """Picks positions, without repetition unless it says otherwise."""

    def pick(self, reader: Readable, window: Window, count: int, first_version: int) -> NDArray[np.int64]:
        """At most `count` positions in 0..window.total-1 of records whose version is at least `first_version`."""


def strategy_of(config: ContinuousTrainingConfig, is_replayed: bool = False) -> Strategy:
    """The strategy that the settings name; `auto` is `half_recent` for a learner that replays, else `uniform`."""
    lag = config.max_policy_lag
    if config.sampling == "half_recent" or (config.sampling == "auto" and is_replayed):
        return HalfRecent(lag)
    if config.sampling == "recency":
        return Recency(config.recency_half_life, config.recency_unit == "seconds", lag)
    if config.sampling == "stratified":
        return Stratified(config.stratified_wait_share, lag)
    if config.sampling == "prioritized":
        return Prioritized(config.prioritized_exponent, lag)
    return Uniform(lag, config.sample_with_repetition)


def distinct(rng: np.random.Generator, total: int, count: int) -> NDArray[np.int64]:
    """min(count, total) different numbers in 0..total-1, every set equally likely: int64[n]."""
    if count >= total:
        return np.arange(total, dtype=np.int64)
    if count * count < total:
        # Few of many: draw again in the rare case of a repetition, which is cheaper than avoiding it.
        while True:
            picks = (rng.random(count) * total).astype(np.int64)
            if len(set(picks.tolist())) == count:
                return picks
    return rng.choice(total, size=count, replace=False, shuffle=False)


def weighted(rng: np.random.Generator, weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """At most `count` different positions, drawn one after the other in proportion to `weights` float64[total].

    Exponential keys E / w, smallest first ("Weighted random sampling with a reservoir", Inf. Proc. Letters 97(5),
    2006). Positions of weight 0 are never drawn.
    """
    allowed = np.flatnonzero(weights > 0)
    if count >= len(allowed):
        return allowed
    keys = rng.standard_exponential(len(allowed)) / weights[allowed]
    return allowed[np.argpartition(keys, count)[:count]]


class Uniform:
    """Every record is equally likely; those more than `max_lag` versions old (0: no bound) are left out."""

    def __init__(self, max_lag: int = 0, with_repetition: bool = False) -> None:
        self.max_lag = max_lag
        self.with_repetition = with_repetition

    def pick(self, reader: Readable, window: Window, count: int, first_version: int) -> NDArray[np.int64]:
        """See Strategy."""
        eligible = _eligible(reader, window, first_version, self.max_lag)
        total = window.total if eligible is None else len(eligible)
        if total == 0:
            return np.empty(0, np.int64)
        picks = reader.rng.integers(total, size=count) if self.with_repetition else distinct(reader.rng, total, count)
        return picks if eligible is None else eligible[picks]


class HalfRecent:
    """Half of each batch is drawn from all records, half from the newest quarter of each lane.

    What was true long ago is not forgotten, and what has changed is learned from twice and a half as much.
    """

    _NEWEST = 0.25

    def __init__(self, max_lag: int = 0) -> None:
        self.max_lag = max_lag

    def pick(self, reader: Readable, window: Window, count: int, first_version: int) -> NDArray[np.int64]:
        """See Strategy. At times a few less than `count`, those that both halves drew."""
        eligible = _eligible(reader, window, first_version, self.max_lag)
        total = window.total if eligible is None else len(eligible)
        if count >= total:
            return np.arange(total, dtype=np.int64) if eligible is None else eligible
        recent = self._recent(window)
        if eligible is not None:
            recent = np.intersect1d(recent, eligible, assume_unique=True)
        older = distinct(reader.rng, total, count - count // 2)
        newer = recent[distinct(reader.rng, len(recent), count // 2)]
        return np.union1d(older if eligible is None else eligible[older], newer)

    def _recent(self, window: Window) -> NDArray[np.int64]:
        """Positions of the newest quarter of each lane: int64[n]."""
        parts, end = [], 0
        for _, _, size in window.lanes:
            end += size
            parts.append(np.arange(end - max(1, int(self._NEWEST * size)), end, dtype=np.int64))
        return np.concatenate(parts)


class Recency:
    """A record's weight halves with every `half_life` versions, or with `seconds` every `half_life` seconds, of age."""

    def __init__(self, half_life: float, seconds: bool = False, max_lag: int = 0) -> None:
        self.half_life = half_life
        self.seconds = seconds
        self.max_lag = max_lag

    def pick(self, reader: Readable, window: Window, count: int, first_version: int) -> NDArray[np.int64]:
        """See Strategy."""
        if self.seconds:
            age = time.time() - reader.column(window, "timestamp")
        else:
            age = reader.control.get("version") - reader.column(window, "version").astype(np.float64)
        # Against the newest record, and never quite 0: a buffer that stood still for long is still sampled.
        weights = np.maximum(np.exp2((age.min() - age) / self.half_life), 1e-200)
        return weighted(reader.rng, _masked(weights, reader, window, first_version, self.max_lag), count)


class Stratified:
    """A share `wait_share` of every batch are WAIT decisions, as far as there are enough of either kind."""

    def __init__(self, wait_share: float, max_lag: int = 0) -> None:
        self.wait_share = wait_share
        self.max_lag = max_lag

    def pick(self, reader: Readable, window: Window, count: int, first_version: int) -> NDArray[np.int64]:
        """See Strategy."""
        blocked = reader.column(window, "decision") == WAIT
        eligible = _eligible(reader, window, first_version, self.max_lag)
        allowed = np.ones(window.total, np.bool_) if eligible is None else np.zeros(window.total, np.bool_)
        if eligible is not None:
            allowed[eligible] = True
        waits, sends = np.flatnonzero(blocked & allowed), np.flatnonzero(~blocked & allowed)
        from_waits = min(len(waits), round(count * self.wait_share))
        from_sends = min(len(sends), count - from_waits)
        from_waits = min(len(waits), count - from_sends)
        parts = [
            group[distinct(reader.rng, len(group), size)]
            for group, size in ((waits, from_waits), (sends, from_sends))
            if size
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


class Prioritized:
    """A record's weight is (|last loss| + 0.01) ** `exponent`; records never trained on weigh as much as the largest.

    Losses are kept by this process for each record's number; `update` is told after each step.
    """

    def __init__(self, exponent: float = 0.6, max_lag: int = 0) -> None:
        self.exponent = exponent
        self.max_lag = max_lag
        self._losses: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        self._largest = 1.0

    def pick(self, reader: Readable, window: Window, count: int, first_version: int) -> NDArray[np.int64]:
        """See Strategy."""
        parts = []
        for lane, low, size in window.lanes:
            known, losses = self._table(lane, reader.capacity)
            numbers = np.arange(low + 1, low + size + 1, dtype=np.int64)
            places = (numbers - 1) % reader.capacity
            parts.append(np.where(known[places] == numbers, losses[places], self._largest))
        weights = (np.concatenate(parts) + 0.01) ** self.exponent
        return weighted(reader.rng, _masked(weights, reader, window, first_version, self.max_lag), count)

    def update(self, reader: Readable, rows: NDArray[Any], losses: NDArray[np.float32]) -> None:
        """Tell the losses float[n] of the records (structured [n]) that the last step trained on."""
        magnitudes = np.abs(losses).astype(np.float64)
        if magnitudes.size:
            self._largest = max(0.99 * self._largest, float(magnitudes.max()))
        numbers = rows["sequence"].astype(np.int64)
        places = (numbers - 1) % reader.capacity
        lanes = rows["ticket"] >> np.uint64(TICKET_BITS)
        for lane in np.unique(lanes):
            mine = lanes == lane
            known, table = self._table(int(lane), reader.capacity)
            known[places[mine]], table[places[mine]] = numbers[mine], magnitudes[mine]

    def _table(self, lane: int, capacity: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if lane not in self._losses:
            self._losses[lane] = (np.zeros(capacity, np.int64), np.zeros(capacity))
        return self._losses[lane]


def _eligible(reader: Readable, window: Window, first_version: int, max_lag: int) -> NDArray[np.int64] | None:
    """Positions of the records that are new enough; None if all are."""
    oldest = max(first_version, reader.control.get("version") - max_lag if max_lag else 0)
    if oldest <= 0:
        return None
    return np.flatnonzero(reader.column(window, "version").astype(np.int64) >= oldest)


def _masked(
    weights: NDArray[np.float64], reader: Readable, window: Window, first_version: int, max_lag: int
) -> NDArray[np.float64]:
    eligible = _eligible(reader, window, first_version, max_lag)
    if eligible is None:
        return weights
    masked = np.zeros_like(weights)
    masked[eligible] = weights[eligible]
    return masked
