"""The game's time: real time, or faster where the game is played faster."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

WINDOW = 15.0
"""Seconds of the game between two observations of a territory."""
_ENOUGH = 20
"""Intervals after which the speed is known."""
_SHARE = 0.05
"""Share that a new interval has in the mean, at least."""
_FASTER = 1.5
"""A game that seems less than so many times faster than real is taken for real: observations may come early."""


class GameClock:
    """Seconds of the game, from a monotonic clock.

    `speed` is how many times faster than real the game is played. None: found from how much more often than every
    WINDOW seconds the observations of a territory come; no game is slower than the real one. At most `max_keys`
    territories are remembered. Not locked: its owner is.
    """

    def __init__(self, clock: Callable[[], float], speed: float | None = None, max_keys: int = 1024) -> None:
        self._clock = clock
        self._is_found = speed is None
        self.speed = 1.0 if speed is None else speed
        self._max_keys = max_keys
        self._last: OrderedDict[Hashable, float] = OrderedDict()
        self._intervals = 0
        self._mean = WINDOW
        self._at = clock()
        self._now = self.speed * self._at

    def now(self) -> float:
        """The game's time."""
        at = self._clock()
        self._now += self.speed * (at - self._at)
        self._at = at
        return self._now

    def observed(self, key: Hashable) -> float:
        """An observation of the territory came: the game's time."""
        now = self.now()
        if self._is_found:
            self._take_interval(key)
        return now

    def _take_interval(self, key: Hashable) -> None:
        last = self._last.pop(key, None)
        self._last[key] = self._at
        if last is None:
            if len(self._last) > self._max_keys:
                self._last.popitem(last=False)
            return
        # Longer is no slower game: somebody paused.
        interval = min(WINDOW, self._at - last)
        self._intervals += 1
        self._mean += max(_SHARE, 1.0 / self._intervals) * (interval - self._mean)
        if self._intervals >= _ENOUGH:
            speed = WINDOW / max(self._mean, 1e-6)
            self.speed = speed if speed >= _FASTER else 1.0
