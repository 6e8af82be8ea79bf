"""The extract of the Open Bandit data as arrays, and what is expected of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[1] / "evaluation" / "open_bandit"
CAMPAIGNS = ("all", "men", "women")
POSITIONS = 3


@dataclass(frozen=True)
class Campaign:
    """One campaign's log, and the uniform policy over its items as the target.

    Every item may stand at each of three positions; an action is an item, a context is a position.
    """

    rewards: Any
    propensities: Any
    actions: Any
    positions: Any
    expected: dict[str, float]

    @classmethod
    def load(cls, name: str) -> Campaign:
        """The columns of the extract, and the values of the reference."""
        with np.load(FOLDER / "extract.npz") as data:
            column = {part: data[f"{name}_{part}"] for part in ("click", "propensity", "item", "position")}
        reference = json.loads((FOLDER / "reference.json").read_text(encoding="utf-8"))
        return cls(
            rewards=column["click"].astype(np.float64),
            propensities=column["propensity"],
            actions=column["item"].astype(np.int64),
            positions=column["position"].astype(np.int64),
            expected=reference["campaigns"][name],
        )

    @property
    def uniform(self) -> Any:
        """The target policy's probabilities of all items, float64[n, K]."""
        items = int(self.expected["items"])
        return np.full((len(self.rewards), items), 1.0 / items)

    @property
    def chosen(self) -> Any:
        """The target policy's probability of the logged item, float64[n]."""
        return np.full(len(self.rewards), 1.0 / int(self.expected["items"]))
