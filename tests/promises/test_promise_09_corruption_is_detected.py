"""A verifying reader notices every single flipped bit in a row or a slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from channel_kit import add, record_layout, wait_for_reward
from proof import figure
from tandem.shared.memory.arrays import SharedArray
from tandem.shared.weights.subscriber import Look

MakeChannel = Callable[..., Any]


def undetected_in_a_row(channel: MakeChannel, verify: bool) -> tuple[int, int]:
    """Flip each bit of one record in turn: how many bits, how many flips a reader did not notice."""
    made = channel(capacity=4, records=record_layout())
    lane = made.claim()
    for stamp in (1, 2, 3):
        add(lane, stamp)
    row = SharedArray(made.name, "ring0", made.records.record, 4).words.view("u1")[1]
    reader = made.reader(verify=verify)
    bits = 8 * len(row)
    missed = 0
    for bit in range(bits):
        row[bit // 8] ^= 1 << bit % 8
        missed += len(reader.recent(4)) != 2
        row[bit // 8] ^= 1 << bit % 8
    assert len(reader.recent(4)) == 3
    return bits, missed


def test_promise_09_rows(channel: MakeChannel) -> None:
    """Every bit of a row counts, sequence, checksum and padding included."""
    bits, missed = undetected_in_a_row(channel, verify=True)
    assert missed == 0
    figure(9, f"{bits - missed:,} of {bits:,} flips in a row")


def test_without_checksums_flips_in_rows_pass(channel: MakeChannel) -> None:
    """The same check finds a reader that looks at the sequence only."""
    _, missed = undetected_in_a_row(channel, verify=False)
    assert missed > 0


def undetected_in_a_slot(channel: MakeChannel, verify: bool) -> tuple[int, int]:
    """The same for the bits of one slot, its sequence and its checksum."""
    made = channel(weights_bytes=256)
    made.publish(made.publisher(), 1)
    slots, room, missed, bits = made.slots(), made.room(), 0, 0
    data = slots.data[1].numpy()
    guard = made.control.bytes[slots.sequence_words[1] * 8 : slots.sequence_words[1] * 8 + 16]
    for memory in (data, guard):
        for bit in range(8 * len(memory)):
            memory[bit // 8] ^= 1 << bit % 8
            missed += made.subscriber(verify=verify).refresh(room) is Look.TAKEN
            memory[bit // 8] ^= 1 << bit % 8
            bits += 1
    assert made.subscriber(verify=verify).refresh(room) is Look.TAKEN
    return bits, missed


def test_promise_09_slots(channel: MakeChannel) -> None:
    """Every bit of a version's weights counts, and of what guards them."""
    bits, missed = undetected_in_a_slot(channel, verify=True)
    assert missed == 0
    figure(9, f"{bits - missed:,} of {bits:,} flips in a slot")


def test_without_checksums_flips_in_slots_pass(channel: MakeChannel) -> None:
    """The same check finds a reader that looks at the sequence only."""
    _, missed = undetected_in_a_slot(channel, verify=False)
    assert missed > 0


def test_promise_09_pending_entries(channel: MakeChannel) -> None:
    """The next owner of a lane adopts no entry with a flipped bit."""
    made = channel(pending=1, records=record_layout(2, 1, 0))
    lane = made.claim()
    wait_for_reward(lane, "a", 5)
    lane.release()
    row = SharedArray(made.name, "pending0", made.records.pending, 1).words.view("u1")[0]
    before = row.copy()
    adopted = 0
    for bit in range(8 * len(row)):
        row[:] = before
        row[bit // 8] ^= 1 << bit % 8
        lane = made.claim()
        adopted += len(lane.pending)
        lane.release()
    assert adopted == 0
    row[:] = before
    assert len(made.claim().pending) == 1
    figure(9, f"{8 * len(row):,} of {8 * len(row):,} flips in a pending entry")
