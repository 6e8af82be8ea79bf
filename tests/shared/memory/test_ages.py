"""How long a decision has waited is kept over a stop, within a boot and over a reboot."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from channel_kit import key_of, wait_for_reward
from tandem.shared.memory.ages import clock, rebase
from tandem.shared.memory.segments import segment_path

MakeChannel = Callable[..., Any]


def rebased(made: Any, kept: Any) -> None:
    path = Path(segment_path(made.name, "pending0"))
    sizes = made.records.record.itemsize, made.records.pending.itemsize
    data = rebase(path.read_bytes(), *sizes, kept)
    with open(path, "r+b") as file:
        file.write(data)


def ages_of(lane: Any) -> list[float]:
    now = time.monotonic_ns()
    return [(now - int(lane.pending.entry(key)["decided_ns"])) / 1e9 for key in lane.pending.keys()]  # noqa: SIM118


def test_a_reboot_keeps_the_ages(channel: MakeChannel) -> None:
    """The clock of another boot stands elsewhere; entries are as old as when they were kept, and whole."""
    made = channel()
    lane = made.claim()
    wait_for_reward(lane, "a", 1)
    wait_for_reward(lane, "b", 2)
    lane.release()
    # As if they had waited for 100 s, of which this boot knows nothing.
    kept = {**clock(), "boot_id": "another"}
    kept["monotonic_ns"] += 100 * 10**9
    rebased(made, kept)
    heir = made.claim()
    assert heir.pending.keys() == [key_of("a"), key_of("b")]
    assert all(100 <= age < 130 for age in ages_of(heir))
    with heir.hold():
        assert heir._writer.expire(time.monotonic_ns() - 150 * 10**9) == []
        assert heir._writer.expire(time.monotonic_ns() - 99 * 10**9) == [key_of("a"), key_of("b")]


def test_within_a_boot_nothing_changes(channel: MakeChannel) -> None:
    """The clock runs on while an instance is down."""
    made = channel()
    lane = made.claim()
    wait_for_reward(lane, "a", 1)
    lane.release()
    before = Path(segment_path(made.name, "pending0")).read_bytes()
    rebased(made, {**clock(), "monotonic_ns": 5})
    rebased(made, None)
    assert Path(segment_path(made.name, "pending0")).read_bytes() == before


def test_damaged_entries_are_left_alone(channel: MakeChannel) -> None:
    """An entry that is not whole stays so: nobody adopts it."""
    made = channel()
    lane = made.claim()
    wait_for_reward(lane, "a", 1)
    lane.release()
    rows = np.memmap(segment_path(made.name, "pending0"), np.uint64, "r+", 4096)
    place = int(np.flatnonzero(rows)[0])
    rows[place + 5] ^= 1
    rebased(made, {"boot_id": "another", "monotonic_ns": 0})
    assert len(made.claim().pending) == 0
