"""Records: every byte where the table says, keys that stay unique, checksums that notice."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tandem.shared.experiences.records import (
    KEY_BYTES,
    PENDING_KEY_BYTES,
    SEND,
    RecordLayout,
    encode_key,
    is_finite_record,
    with_reward,
)
from tandem.shared.memory.rows import PREFIX_BYTES, checksum

f4 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def unpack(layout: RecordLayout, payload: bytes) -> np.void:
    row: np.void = np.frombuffer(bytes(PREFIX_BYTES) + payload, layout.record)[0]
    return row


@given(st.integers(1, 30), st.integers(1, 3), st.integers(0, 4), st.data())
def test_what_is_packed_is_what_numpy_reads(features: int, heads: int, components: int, data: st.DataObject) -> None:
    """The packer and the dtype agree on every field, for any layout."""
    layout = RecordLayout(features, heads, components)
    observation = np.array(data.draw(st.lists(f4, min_size=features, max_size=features)), np.float32)
    action = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=heads, max_size=heads))
    parts = data.draw(st.lists(f4, min_size=components, max_size=components))
    ticket = data.draw(st.integers(0, 2**64 - 1))
    payload = layout.pack(ticket, 2, 3.5, 4.5, 5.5, 0.25, 0.5, SEND, action, observation, parts, b"key")
    assert len(payload) + PREFIX_BYTES == layout.record.itemsize
    row = unpack(layout, payload)
    assert (row["ticket"], row["version"], row["timestamp"]) == (ticket, 2, 3.5)
    assert (row["expected_reward"], row["actual_reward"]) == (4.5, 5.5)
    assert (row["probability"], row["confidence"], row["decision"]) == (0.25, 0.5, SEND)
    assert row["action"].tolist() == action
    assert row["observation"].tobytes() == observation.tobytes()
    assert row["components"].tolist() == parts
    assert bytes(row["key"]) == b"key"


def test_rows_are_whole_words() -> None:
    """Sequence and checksum are aligned in every row of any layout."""
    for features in range(1, 9):
        for heads in (1, 2, 3):
            for context in (0, 1, 5, 8):
                layout = RecordLayout(features, heads, 1, context)
                assert layout.record.itemsize % 8 == 0
                assert layout.pending.itemsize % 8 == 0
                assert layout.record.fields is not None
                assert layout.record.fields["sequence"][1] == 0
                assert layout.record.fields["checksum"][1] == 8


def test_the_reward_is_filled_in_and_nothing_else_changes() -> None:
    """Four bytes of the payload differ."""
    layout = RecordLayout(3, 1, 0)
    payload = layout.pack(1, 2, 3.0, 4.0, math.nan, 0.5, 0.5, SEND, [1], np.zeros(3, np.float32), [], b"k")
    rewarded = with_reward(payload, 0.75)
    assert unpack(layout, rewarded)["actual_reward"] == 0.75
    assert unpack(layout, payload)["actual_reward"] != unpack(layout, payload)["actual_reward"]
    assert sum(a != b for a, b in zip(payload, rewarded, strict=True)) <= 4


def test_a_wrong_observation_is_refused() -> None:
    """A wrong length never reaches the memory."""
    layout = RecordLayout(3, 1, 0)
    with pytest.raises(ValueError, match="expected 3"):
        layout.pack(1, 2, 3.0, 4.0, 5.0, 0.5, 0.5, SEND, [1], np.zeros(4, np.float32), [], b"k")
    with pytest.raises(struct.error):
        layout.pack(1, 2, 3.0, 4.0, 5.0, 0.5, 0.5, SEND, [2**31], np.zeros(3, np.float32), [], b"k")


@given(st.text(), st.sampled_from([KEY_BYTES, PENDING_KEY_BYTES]))
def test_keys_fit(key: str, width: int) -> None:
    """Any text becomes at most `width` bytes."""
    assert len(encode_key(key, width)) <= width


def test_long_keys_stay_apart_and_odd_texts_do_not_raise() -> None:
    """Two long keys with the same start differ; a lone surrogate is a key too."""
    assert encode_key("x" * 500 + "a", KEY_BYTES) != encode_key("x" * 500 + "b", KEY_BYTES)
    assert encode_key("abc", KEY_BYTES) == b"abc"
    assert encode_key("\ud800", KEY_BYTES)


@given(st.binary(min_size=8, max_size=64), st.integers(0, 2**64 - 1), st.data())
def test_a_flipped_bit_changes_the_checksum(payload: bytes, sequence: int, data: st.DataObject) -> None:
    """Any single bit of the payload, or of the sequence's low half, matters."""
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    flipped = bytearray(payload)
    flipped[bit // 8] ^= 1 << bit % 8
    assert checksum(bytes(flipped), sequence) != checksum(payload, sequence)
    assert checksum(payload, sequence ^ (1 << data.draw(st.integers(0, 31)))) != checksum(payload, sequence)


def test_what_is_not_finite_is_noticed() -> None:
    """NaN and infinities, in the observation or beside it."""
    good = np.ones(28, np.float32)
    assert is_finite_record(good, 1.0, -2.0)
    for bad in (math.nan, math.inf, -math.inf):
        spoilt = good.copy()
        spoilt[7] = bad
        assert not is_finite_record(spoilt, 1.0)
        assert not is_finite_record(good, 1.0, bad)
    both = good.copy()
    both[:2] = math.inf, -math.inf
    assert not is_finite_record(both)
