"""What a simulated game measured: decisions, latency, rewards, versions, errors; bounded however long it plays."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_LATENCIES = 50_000
_BLOCKS = 4096


@dataclass(frozen=True)
class PlayResult:
    """The figures of a game so far; times in seconds unless named otherwise, None where nothing was measured."""

    decisions: int
    decisions_per_s: float
    latency_ms: dict[str, float | None]
    send: int
    wait: int
    errors: int
    error_kinds: dict[str, int]
    mean_reward: dict[str, float | None]
    model_version: dict[str, int | None]
    failed_spawns: int
    mining_share: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, ready for JSON."""
        return asdict(self)


class RewardLog:
    """Rewards in order of arrival, kept as sums of equal blocks; neighbouring blocks are merged when there are many."""

    def __init__(self, blocks: int = _BLOCKS) -> None:
        self._limit = blocks
        self._sums = array("d")
        self._size = 1
        self._filled = 0

    def add(self, reward: float) -> None:
        """Append one reward."""
        if self._filled % self._size == 0:
            if len(self._sums) == self._limit:
                # An even number of full blocks: each pair becomes one.
                self._sums = array("d", [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)])
                self._size *= 2
            self._sums.append(0.0)
        self._sums[-1] += reward
        self._filled += 1

    def quarters(self) -> tuple[float | None, float | None]:
        """The means of the first and of the last quarter, to the nearest block; None before the first reward."""
        if not self._sums:
            return None, None
        last_size = self._filled - self._size * (len(self._sums) - 1)
        quarter = max(1, len(self._sums) // 4)
        first = self._sums[:quarter]
        last = self._sums[-quarter:]
        first_count = quarter * self._size if quarter < len(self._sums) else self._filled
        return sum(first) / first_count, sum(last) / ((quarter - 1) * self._size + last_size)


@dataclass
class Tally:
    """Counts while a game is played; `result` may be taken at any time."""

    started: float = field(default_factory=time.perf_counter)
    send: int = 0
    wait: int = 0
    failed_spawns: int = 0
    first_version: int | None = None
    last_version: int | None = None
    errors: dict[str, int] = field(default_factory=lambda: {"timeouts": 0, "error_frames": 0, "refused": 0, "lost": 0})
    rewards: RewardLog = field(default_factory=RewardLog)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=200))
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))

    def error(self, kind: str) -> None:
        """Count one error of this kind."""
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def reply(self, data: dict[str, Any], seconds: float) -> None:
        """Count the reply to an observation that took so many seconds."""
        self.latencies.append(seconds)
        version = data.get("modelVersion")
        if isinstance(version, int):
            if self.first_version is None:
                self.first_version = version
            self.last_version = version
        reward = data.get("lastReward")
        if isinstance(reward, int | float):
            self.rewards.add(reward)
            self.recent.append(reward)

    def result(self, mining_shares: Sequence[float] = ()) -> PlayResult:
        """The figures up to now."""
        seconds = time.perf_counter() - self.started
        decisions = self.send + self.wait
        ordered = sorted(self.latencies)
        first, last = self.rewards.quarters()
        return PlayResult(
            decisions=decisions,
            decisions_per_s=round(decisions / seconds, 2) if seconds > 0 else 0.0,
            latency_ms={"p50": _percentile(ordered, 0.50), "p99": _percentile(ordered, 0.99)},
            send=self.send,
            wait=self.wait,
            errors=sum(self.errors.values()),
            error_kinds=dict(self.errors),
            mean_reward={"first_quarter": _rounded(first), "last_quarter": _rounded(last)},
            model_version={"first": self.first_version, "last": self.last_version},
            failed_spawns=self.failed_spawns,
            mining_share=round(sum(mining_shares) / len(mining_shares), 4) if mining_shares else 0.0,
            seconds=round(seconds, 2),
        )


def _percentile(ordered: list[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
