"""The row protocol: what is stored, in which order, and that the ring's own copy of it does the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from channel_kit import payload, value_of
from tandem.shared.memory.arrays import HEADER_BYTES
from tandem.shared.memory.rows import PREFIX_BYTES, checksum, is_whole, write_numbers, write_row

MakeChannel = Callable[..., Any]


class Recorded:
    """Memory that writes down every store; words and bytes are views of the same `stores`."""

    def __init__(self, memory: memoryview, stores: list[Any], kind: str) -> None:
        self._memory, self._stores, self._kind = memory, stores, kind

    def __setitem__(self, place: Any, value: Any) -> None:
        shown = (place.start, place.stop) if isinstance(place, slice) else place
        self._stores.append((self._kind, shown, bytes(value) if isinstance(value, bytes | memoryview) else value))
        self._memory[place] = value

    def __getitem__(self, place: Any) -> Any:
        return self._memory[place]


def recorded(size: int) -> tuple[list[Any], Any, Any, Any]:
    raw = memoryview(bytearray(size))
    stores: list[Any] = []
    parts = ((raw.cast("Q"), "word"), (raw, "byte"), (raw.cast("d"), "float"))
    return stores, *(Recorded(view, stores, kind) for view, kind in parts)


def test_a_row_is_invalid_until_all_of_it_is_there() -> None:
    """The number goes first and comes last."""
    stores, words, raw, _ = recorded(96)
    write_row(words, raw, 32, 7, b"x" * 16)
    assert stores == [
        ("word", 4, 0),
        ("byte", (48, 64), b"x" * 16),
        ("word", 5, checksum(b"x" * 16, 7)),
        ("word", 4, 7),
    ]


def test_numbers_are_stored_one_by_one_between_two_looks() -> None:
    """A row of numbers has no checksum: each of them is whole by itself."""
    stores, words, _, floats = recorded(96)
    write_numbers(words, floats, 32, 7, [0.5, 1.5])
    assert stores == [("word", 4, 0), ("float", 5, 0.5), ("float", 6, 1.5), ("word", 4, 7)]


def test_a_flipped_bit_is_found() -> None:
    """Also one in the number or in the checksum."""
    raw = memoryview(bytearray(64))
    words = raw.cast("Q")
    contents = random.Random(1).randbytes(64 - PREFIX_BYTES)
    write_row(words, raw, 0, 7, contents)
    assert is_whole(words, raw, 0, 64, 7)
    assert not is_whole(words, raw, 0, 64, 8)
    for bit in range(64 * 8):
        raw[bit >> 3] ^= 1 << (bit & 7)
        assert not is_whole(words, raw, 0, 64, 7), bit
        raw[bit >> 3] ^= 1 << (bit & 7)


@pytest.mark.parametrize("stamp", [1, 5, 9])
def test_the_ring_stores_what_rows_stores_in_the_same_order(channel: MakeChannel, stamp: int) -> None:
    """`Ring.append` is the protocol without a call: the same stores, one after the other, then the two counts."""
    made = channel(capacity=4)
    ring = made.claim().ring
    stores: list[Any] = []
    ring._row_words = Recorded(ring.rows.word_view, stores, "word")
    ring._raw = Recorded(ring.rows.raw, stores, "byte")
    for number in range(1, stamp + 1):
        contents = payload(made.records, number, number, value_of(number))
        stores.clear()
        ring.append(contents)
        mine = list(stores)
        stores.clear()
        start = HEADER_BYTES + (number - 1) % 4 * ring.rows.row_bytes
        write_row(ring._row_words, ring._raw, start, number, contents)
        assert mine == stores


def test_a_batch_stores_what_single_rows_store(channel: MakeChannel) -> None:
    """`Ring.append_many` leaves the same bytes as one row after the other."""
    made = channel(capacity=8, lanes=2)
    one, many = made.claim().ring, made.claim().ring
    bodies = [payload(made.records, 1, stamp, value_of(stamp)) for stamp in range(1, 6)]
    rows = np.array([np.frombuffer(bytes(PREFIX_BYTES) + body, made.records.record)[0] for body in bodies])
    for body in bodies:
        one.append(body)
    many.append_many(rows)
    assert bytes(one.rows.raw) == bytes(many.rows.raw)
