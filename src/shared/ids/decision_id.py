"""The id of a decision as text: what a client keeps until it can say what the decision earned.

`<series>-<ticket>`, both in hexadecimal. A ticket (`experiences.records.TICKET_BITS`) names one decision of a series;
the series is a random number that an instance draws when it begins with empty rings, and that comes back with its saved
state. A decision id is therefore never given out twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ID = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})")


@dataclass(frozen=True)
class DecisionId:
    """A decision id, taken apart."""

    series: int
    ticket: int

    def __str__(self) -> str:
        return f"{self.series:016x}-{self.ticket:016x}"

    @classmethod
    def parse(cls, text: str) -> DecisionId | None:
        """The id that `text` is, or None if it is none."""
        found = _ID.fullmatch(text)
        return None if found is None else cls(int(found[1], 16), int(found[2], 16))
