"""The actual reward of a decision: what changed between the observation it was made on and the next one."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .features import ConfigSource
from .observation import Observation, as_observation, rate

TREND_WINDOW = 10

_MINING_WEIGHT, _PROTECTOR_WEIGHT, _ENERGY_WEIGHT = 0.4, 0.3, 0.3
_CLEARED_CHUNK_BONUS, _PROTECTOR_LOSS_BONUS = 0.2, 0.15
_NO_IMPACT, _NO_IMPACT_PENALTY = 0.05, -0.1
_HIVE_DISTANCE_WEIGHT, _WORKER_DISTANCE_WEIGHT = 0.3, 0.4


class QueenReward:
    """Computes section by section: disruption, bonuses, no impact, spawn gating, spawn location; clipped to -1..1.

    Of the earlier observation only the counts and the chunks that were mined are kept (`context_dtype`), because
    that is all the formulas need.
    """

    def __init__(self, source: ConfigSource) -> None:
        config = source.current
        self._chunks = config.chunks
        self._axis = config.chunks_per_axis
        self._scale = 1.0 / config.max_chunk_distance if self._axis > 1 else 0.0
        self._bytes = (self._chunks + 7) // 8
        self.context_dtype: np.dtype[Any] = reward_context_dtype(self._chunks)

    def context(self, observation: Any) -> NDArray[Any]:
        """What `reward` needs of this observation later: a 0-dimensional array of `context_dtype`."""
        seen = observation if type(observation) is Observation else as_observation(observation)
        mined = self._bitmap(seen.mining).to_bytes(self._bytes, "little")
        kept = np.zeros((), dtype=self.context_dtype)
        kept[()] = (len(seen.mining), len(seen.protectors), len(seen.present), np.frombuffer(mined, dtype=np.uint8))
        return kept

    def reward(
        self, context: NDArray[Any], action: tuple[int, ...] | None, executed: bool, observation: Any
    ) -> tuple[float, dict[str, float]]:
        """The reward, -1..1, and its components.

        `executed` is false for a spawn that was held back. With `action` None nothing was decided at all, and
        neither spawn gating nor spawn location applies.
        """
        seen = observation if type(observation) is Observation else as_observation(observation)
        mining, protectors, present, bits = context.item()
        mining_change = -rate(mining, len(seen.mining))
        protector_change = -rate(protectors, len(seen.protectors))
        drain = -rate(seen.energy_start, seen.energy_end)
        mined = int.from_bytes(bits.tobytes() if isinstance(bits, np.ndarray) else bytes(bits), "little")
        cleared = (mined & ~self._bitmap(seen.mining)).bit_count()
        bonuses = _CLEARED_CHUNK_BONUS * cleared + _PROTECTOR_LOSS_BONUS * max(0, protectors - len(seen.protectors))
        total = _MINING_WEIGHT * mining_change + _PROTECTOR_WEIGHT * protector_change + _ENERGY_WEIGHT * drain + bonuses
        components = {
            "mining_disruption": mining_change,
            "protector_reduction": protector_change,
            "player_energy_drain": drain,
            "bonuses": bonuses,
        }
        penalties = {}
        if abs(mining_change) < _NO_IMPACT and abs(protector_change) < _NO_IMPACT and abs(drain) < _NO_IMPACT:
            penalties["no_impact_penalty"] = _NO_IMPACT_PENALTY
        if action is not None:
            if executed:
                penalties["spawn_gating"] = 0.0 if present or mining else -0.5
                penalties["spawn_location"] = self._misplacement(action[0], seen)
            else:
                penalties["spawn_gating"] = _idleness(bool(present), bool(mining), seen)
        for name, penalty in penalties.items():
            total += penalty
            if penalty != 0.0:
                components[name] = penalty
        return max(-1.0, min(1.0, total)), components

    def _bitmap(self, chunk_ids: list[int]) -> int:
        bits = 0
        for chunk in chunk_ids:
            if 0 <= chunk < self._chunks:
                bits |= 1 << chunk
        return bits

    def _misplacement(self, chunk: int, seen: Observation) -> float:
        if not 0 <= chunk < self._chunks:
            return 0.0
        if not seen.present:
            if not 0 <= seen.hive < self._chunks:
                return 0.0
            return -_HIVE_DISTANCE_WEIGHT * min(1.0, self._distance(chunk, seen.hive) * self._scale)
        nearest = min(
            (self._distance(chunk, place) for place in seen.present if 0 <= place < self._chunks), default=None
        )
        return 0.0 if nearest is None else -_WORKER_DISTANCE_WEIGHT * min(1.0, nearest * self._scale)

    def _distance(self, first: int, second: int) -> float:
        across = first % self._axis - second % self._axis
        along = first // self._axis - second // self._axis
        return math.sqrt(across * across + along * along)


def reward_context_dtype(chunks: int) -> np.dtype[Any]:
    """The fixed-size record of an earlier observation on a grid of `chunks`: counts and a bitmap of mined chunks."""
    return np.dtype(
        [("mining", "<u4"), ("protectors", "<u4"), ("present", "<u4"), ("mined", "u1", ((chunks + 7) // 8,))]
    )


def _idleness(present: bool, mining: bool, seen: Observation) -> float:
    """The penalty for holding back: larger the better the player was doing meanwhile."""
    penalty = 0.0
    if present:
        penalty -= 0.1
    if mining:
        penalty -= 0.6
    penalty -= 0.5 * max(0.0, rate(seen.energy_start, seen.energy_end))
    penalty -= 0.5 * max(0.0, rate(seen.minerals_start, seen.minerals_end))
    return penalty


class RewardTrend:
    """The last ten rewards of one territory and where they are heading."""

    def __init__(self) -> None:
        self._rewards: deque[float] = deque(maxlen=TREND_WINDOW)

    def add(self, reward: float) -> None:
        """Append one reward."""
        self._rewards.append(reward)

    @property
    def trend(self) -> str:
        """`improving`, `declining`, `stable` or `insufficient_data`: the newer five against the up to five before."""
        rewards = list(self._rewards)
        older, newer = rewards[:-5], rewards[-5:]
        if len(rewards) < 3 or not older:
            return "insufficient_data"
        change = sum(newer) / len(newer) - sum(older) / len(older)
        return "improving" if change > 0.1 else "declining" if change < -0.1 else "stable"
