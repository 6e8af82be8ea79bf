"""Requests that were answered already: while its decision waits, a request that comes again gets the same answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..experiences.lane import Lane
from ..experiences.pending import is_whole
from ..experiences.records import REASON_BYTES


def answer_of(request_hash: int, reason: str) -> bytes:
    """What the pending entry keeps of a request so that its answer can be given again: hash and gate's reason."""
    # A cut may split a character: what is left of it is dropped when the text is read.
    text = reason.encode("utf-8", "replace")[:REASON_BYTES]
    return request_hash.to_bytes(8, "little") + text.ljust(REASON_BYTES, b"\0")


class Requests:
    """Finds the decisions of requests in the pending tables of all lanes, seen from `lane`, which is held."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._others = list(lane.forwarded.tables.values())

    def find(self, request_hash: int) -> np.void | None:
        """A copy of the entry of the decision that answered the request, or None if none waits."""
        return self._search([self._lane.pending.entries, *self._others], request_hash)

    def find_elsewhere(self, request_hash: int) -> np.void | None:
        """The same among the decisions of other lanes."""
        return self._search(self._others, request_hash)

    @staticmethod
    def _search(tables: list[NDArray[Any]], request_hash: int) -> np.void | None:
        for table in tables:
            for place in np.flatnonzero(table["request"] == request_hash):
                entry: np.void = table[place].copy()
                if int(entry["request"]) == request_hash and is_whole(entry):
                    return entry
        return None
