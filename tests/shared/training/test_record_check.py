"""Records that no engine would have written are told from those that one has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tandem.shared.application import ActionHead
from tandem.shared.experiences.records import SEND, TICKET_BITS, WAIT, RecordLayout
from tandem.shared.training.record_check import RecordCheck

LAYOUT = RecordLayout(features=2, heads=2, components=0)
CHECK = RecordCheck((ActionHead("place", 3), ActionHead("kind", 2)), lanes=2)


def records(count: int = 4) -> Any:
    """Records as an engine writes them, SEND and WAIT in turn."""
    rows = np.zeros(count, LAYOUT.record)
    rows["ticket"] = np.arange(1, count + 1)
    rows["probability"] = 0.5
    rows["decision"] = np.arange(count) % 2 == 0
    rows["actual_reward"] = np.where(rows["decision"] == SEND, 1.0, np.nan)
    rows["action"] = [2, 1]
    return rows


def test_what_an_engine_writes_makes_sense() -> None:
    """A blocked decision has no actual reward, and the last lane's tickets and the last choices are good ones."""
    rows = records()
    rows["ticket"][3] = (2 << TICKET_BITS) - 1
    assert CHECK.senseless(rows) is None
    assert CHECK.senseless(rows[:0]) is None
    assert rows["decision"].tolist() == [SEND, WAIT, SEND, WAIT]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("action", [3, 0]),
        ("action", [0, 2]),
        ("action", [-1, 0]),
        ("action", [2**31 - 1, -(2**31)]),
        ("ticket", 2 << TICKET_BITS),
        ("ticket", 2**64 - 1),
        ("version", 2**63),
        ("decision", 2),
        ("expected_reward", np.nan),
        ("probability", np.inf),
        ("actual_reward", np.nan),
        ("actual_reward", -np.inf),
        ("observation", [0.0, np.nan]),
        ("observation", [np.inf, 0.0]),
    ],
)
def test_what_makes_no_sense_is_found_and_nothing_else(field: str, value: Any) -> None:
    """One record is spoilt, in one field; the others stay."""
    rows = records()
    rows[field][2] = value
    found = CHECK.senseless(rows)
    assert found is not None
    assert found.tolist() == [False, False, True, False]
