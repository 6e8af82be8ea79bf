"""An experience as an object: one decision, what the gate said, and what came of it.

The decision path and the trainer work on arrays of records; this is the form for people, tests and small scripts. The
names are those of the continuous-training plan: an action is a chunk and a type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..configuration.config import ContinuousTrainingConfig
from .records import SEND, WAIT, decode_key

WAIT_FLOOR = -1.0
"""Stored in place of an expected reward of -inf (an action that could not be paid for)."""


@dataclass(frozen=True, eq=False)
class Experience:
    """One decision. `actual_reward` is None while it is pending, and stays None for a WAIT.

    `observation` is float32[features]; `spawn_chunk` and `spawn_type` are the indices chosen in the first and second
    action head; `nn_confidence` is the probability of the chosen chunk and `probability` that of the whole
    action; `timestamp` is in seconds since 1970.
    """

    observation: NDArray[np.float32]
    spawn_chunk: int
    spawn_type: int
    nn_confidence: float
    gate_decision: str
    expected_reward: float
    gate_components: dict[str, float] = field(default_factory=dict)
    actual_reward: float | None = None
    timestamp: float = 0.0
    territory_id: str = ""
    model_version: int = 0
    probability: float = 1.0

    def __post_init__(self) -> None:
        if self.gate_decision not in ("SEND", "WAIT"):
            raise ValueError(f"gate_decision: {self.gate_decision!r} (allowed: SEND, WAIT)")

    @property
    def is_completed(self) -> bool:
        """True if nothing more will be learned about it: its reward is known, or it was blocked."""
        return self.actual_reward is not None or self.gate_decision == "WAIT"

    @property
    def action(self) -> tuple[int, int]:
        """Chunk and type."""
        return self.spawn_chunk, self.spawn_type

    @property
    def effective_reward(self) -> float:
        """`training_reward` with the default weights."""
        return self.training_reward(ContinuousTrainingConfig())

    def training_reward(self, config: ContinuousTrainingConfig, gated: bool = True) -> float:
        """The reward that the trainer uses.

        SEND: simulation_reward_weight * expected + actual_reward_weight * actual, or the expected reward while none
        is known; the actual one alone if the application has no gate (`gated` is false). WAIT: expected *
        wait_reward_multiplier.
        """
        expected = self.expected_reward if math.isfinite(self.expected_reward) else WAIT_FLOOR
        if self.gate_decision == "WAIT":
            return expected * config.wait_reward_multiplier
        if self.actual_reward is None:
            return expected
        if not gated:
            return self.actual_reward
        return config.simulation_reward_weight * expected + config.actual_reward_weight * self.actual_reward

    @classmethod
    def from_record(cls, row: Any, components: Sequence[str] = ()) -> Experience:
        """An experience from one record (numpy structured scalar)."""
        actual = float(row["actual_reward"])
        action = [int(choice) for choice in row["action"]]
        return cls(
            observation=np.array(row["observation"], dtype=np.float32),
            spawn_chunk=action[0],
            spawn_type=action[1] if len(action) > 1 else 0,
            nn_confidence=float(row["confidence"]),
            gate_decision="SEND" if row["decision"] == SEND else "WAIT",
            expected_reward=float(row["expected_reward"]),
            gate_components=dict(zip(components, map(float, row["components"]), strict=False)),
            actual_reward=None if math.isnan(actual) else actual,
            timestamp=float(row["timestamp"]),
            territory_id=decode_key(bytes(row["key"])),
            model_version=int(row["version"]),
            probability=float(row["probability"]),
        )

    @property
    def decision(self) -> int:
        """The gate decision as records store it."""
        return SEND if self.gate_decision == "SEND" else WAIT
