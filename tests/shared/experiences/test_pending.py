"""The pending table: what waits, in what order, and what the next owner finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from channel_kit import key_of, payload
from tandem.shared.experiences.pending import PendingTable
from tandem.shared.memory.arrays import SharedArray

MakeChannel = Callable[..., Any]


def table(made: Any) -> PendingTable:
    """The table of lane 0, as its next owner would see it."""
    rows = made.control.get("pending_capacity")
    return PendingTable(SharedArray(made.name, "pending0", made.records.pending, rows), made.records)


def store(entries: PendingTable, made: Any, key: str, ticket: int) -> None:
    entries.store(ticket, payload(made.records, ticket, ticket), key_of(key), bytes([ticket]) * 16)


def test_entries_come_back_in_the_order_of_their_decisions(channel: MakeChannel) -> None:
    """The next owner finds every entry, oldest first, with its context."""
    made = channel(pending=4)
    first = table(made)
    for ticket, key in enumerate("abc", start=1):
        store(first, made, key, ticket)
    first.clear(key_of("a"))
    store(first, made, "d", 4)
    found = table(made)
    assert found.keys() == first.keys() == [key_of(key) for key in "bcd"]
    entry = found.entry(key_of("c"))
    assert entry is not None
    assert entry["version"] == 3
    assert entry["context"].tobytes() == bytes([3]) * 16
    assert found.oldest() == key_of("b")
    assert len(found) == 3
    assert not found.is_full
    store(found, made, "e", 5)
    assert found.is_full


def test_a_damaged_or_half_written_entry_is_not_adopted(channel: MakeChannel) -> None:
    """Its place is free again."""
    made = channel(pending=2)
    first = table(made)
    store(first, made, "a", 1)
    store(first, made, "b", 2)
    rows = SharedArray(made.name, "pending0", made.records.pending, 2)
    place = int((rows.array["sequence"] == 1).argmax())
    rows.words[place, 5] ^= 1
    found = table(made)
    assert found.keys() == [key_of("b")]
    store(found, made, "c", 3)
    assert table(made).keys() == [key_of("b"), key_of("c")]


def test_a_key_that_is_not_there(channel: MakeChannel) -> None:
    """Looking is harmless."""
    made = channel()
    entries = table(made)
    assert entries.entry(key_of("a")) is None
    assert entries.payload_with_reward(key_of("a"), 1.0) is None
    assert key_of("a") not in entries
    with pytest.raises(StopIteration):
        entries.oldest()


def test_a_ticket_is_forgotten_wherever_it_lies(channel: MakeChannel) -> None:
    """The entry of a completed decision goes; others stay."""
    made = channel()
    entries = table(made)
    store(entries, made, "a", 1)
    store(entries, made, "b", 2)
    entries.forget_ticket(1)
    entries.forget_ticket(99)
    assert entries.keys() == [key_of("b")] == table(made).keys()


def test_keys_with_trailing_zeros_or_full_width_come_back(channel: MakeChannel) -> None:
    """A key of the whole width is itself after adoption."""
    made = channel()
    entries = table(made)
    for ticket, key in enumerate(("x" * 128, "y" * 300, "ü" * 40), start=1):
        store(entries, made, key, ticket)
    assert table(made).keys() == entries.keys()
