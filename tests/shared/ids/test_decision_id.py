"""Decision ids as text."""

from __future__ import annotations

import pytest
from tandem.shared.ids.decision_id import DecisionId


def test_an_id_is_read_back_as_it_was_written() -> None:
    """What `str` gives, `parse` takes apart again, for the smallest and the largest."""
    for name in (DecisionId(0, 1), DecisionId(2**64 - 1, 2**52 - 1), DecisionId(7, 3 << 48 | 9)):
        assert DecisionId.parse(str(name)) == name


@pytest.mark.parametrize("text", ["", "x", "0" * 33, "0" * 16 + "-" + "0" * 15, "0" * 16 + "-" + "G" * 16, "0-1\n"])
def test_what_is_no_id_is_none(text: str) -> None:
    """A text of another form names no decision."""
    assert DecisionId.parse(text) is None
