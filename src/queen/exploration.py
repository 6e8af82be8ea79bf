"""Where each territory was spawned into last, and the bonus that places get for having been left alone."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable

from .gate_config import GateConfig


def annealed(config: GateConfig, version: int) -> float:
    """The full bonus at a model version: max(minimum, coefficient x 0.5^(version / half-life))."""
    if version <= 0:
        return max(config.exploration_min, config.exploration_coefficient)
    half_lives = version / config.exploration_half_life
    return max(config.exploration_min, config.exploration_coefficient * math.pow(0.5, half_lives))


class Exploration:
    """Times of the last spawn, by key and chunk.

    Bounded both ways: one entry for each chunk of the grid, and `max_keys` keys, of which the one that was
    spawned into least recently is dropped first. Times come from a monotonic clock. Not locked: its owner is.
    """

    def __init__(self, chunks: int, max_keys: int = 1024) -> None:
        self._chunks = chunks
        self._max_keys = max_keys
        self._last: OrderedDict[Hashable, dict[int, float]] = OrderedDict()
        self._undo: dict[Hashable, tuple[int, float | None]] = {}

    def last_spawns(self, key: Hashable) -> dict[int, float]:
        """Chunk to time of the last spawn for `key`; not to be changed by the caller."""
        return self._last.get(key) or {}

    def freshness(self, key: Hashable, chunk: int, max_time: float, now: float) -> float:
        """How long the chunk was left alone, 0..1 of `max_time`; 1 if it was never spawned into."""
        last = self._last.get(key)
        if last is None:
            return 1.0
        at = last.get(chunk)
        if at is None:
            return 1.0
        age = (now - at) / max_time
        return 0.0 if age < 0.0 else 1.0 if age > 1.0 else age

    def spawned(self, key: Hashable, chunk: int, now: float) -> None:
        """Note a spawn; a chunk outside the grid is ignored."""
        if not 0 <= chunk < self._chunks:
            return
        last = self._last.get(key)
        if last is None:
            last = self._last[key] = {}
            while len(self._last) > self._max_keys:
                dropped, _ = self._last.popitem(last=False)
                self._undo.pop(dropped, None)
        else:
            self._last.move_to_end(key)
        self._undo[key] = (chunk, last.get(chunk))
        last[chunk] = now

    def undo(self, key: Hashable, chunk: int) -> bool:
        """Take back the last spawn of `key` if it was into `chunk`; says whether it did."""
        undo = self._undo.get(key)
        if undo is None or undo[0] != chunk:
            return False
        del self._undo[key]
        last = self._last[key]
        if undo[1] is None:
            last.pop(chunk, None)
        else:
            last[chunk] = undo[1]
        return True

    def forget(self, key: Hashable) -> None:
        """Drop what is known about `key`."""
        self._last.pop(key, None)
        self._undo.pop(key, None)

    def clear(self) -> None:
        """Drop everything."""
        self._last.clear()
        self._undo.clear()

    def statistics(self) -> dict[str, float]:
        """How many different chunks were spawned into in any territory that is remembered."""
        explored: set[int] = set()
        for last in list(self._last.values()):
            explored.update(last)
        return {
            "total_chunks": self._chunks,
            "explored_chunks": len(explored),
            "unexplored_chunks": self._chunks - len(explored),
            "exploration_rate": len(explored) / self._chunks,
        }
