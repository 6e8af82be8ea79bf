"""Which records make sense: a whole row with the right checksum may still hold what no engine would have written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..application import ActionHead
from ..experiences.records import SEND, TICKET_BITS

_VERSIONS = np.uint64(2**62)


class RecordCheck:
    """Looks at records of one application and of so many lanes, whoever may have written them."""

    def __init__(self, heads: Sequence[ActionHead], lanes: int) -> None:
        self._sizes = np.array([head.size for head in heads], dtype=np.int32)
        self._tickets = np.uint64(lanes << TICKET_BITS)

    def senseless(self, rows: NDArray[Any]) -> NDArray[np.bool_] | None:
        """Which records (structured [n]) hold an action that does not exist, no lane's ticket, or no number where one
        must be: bool[n], None if none does."""
        action, sent = rows["action"], rows["decision"] == SEND
        numbers = np.isfinite(rows["expected_reward"] + rows["probability"])
        numbers &= np.isfinite(rows["actual_reward"]) | ~sent
        fine = numbers & np.isfinite(rows["observation"]).all(axis=1) & (rows["decision"] <= SEND)
        fine &= ((action >= 0) & (action < self._sizes)).all(axis=1)
        fine &= (rows["ticket"] < self._tickets) & (rows["version"] < _VERSIONS)
        for field in ("candidates", "value"):
            if field in (rows.dtype.names or ()):
                fine &= np.isfinite(rows[field]).reshape(len(rows), -1).all(axis=1)
        return None if fine.all() else ~fine
