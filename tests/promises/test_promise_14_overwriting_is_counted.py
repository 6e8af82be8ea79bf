"""Written, overwritten, sampled and given up are exact under overload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from channel_kit import balance
from proof import figure, size
from tandem.shared.telemetry.stats import buffer_stats

MakeChannel = Callable[..., Any]


def reconcile(channel: MakeChannel, nursery: Any, lane: str, count: int) -> tuple[list[str], Any]:
    """Overload a ring of 50 with `count` records while a sampler runs: what does not add up, and the counts."""
    made = channel(capacity=50)
    sampler = nursery.start("sample_rows", name=made.name, reader="ReplayReader", rows=10**12).ready()
    written = nursery.run("write_rows", name=made.name, lane=lane, count=count)
    sampled = sampler.stop()
    stats = buffer_stats(made.control)
    wrong = []
    for what, ours, theirs in (
        ("written and head", written["written"], written["head"]),
        ("written and added", written["written"], stats["total_added"]),
        ("added and in the ring + overwritten", stats["total_added"], stats["size"] + stats["overwritten"]),
        ("decided and completed", stats["decided"], stats["completed"]),
        ("in the ring and readable", stats["size"], len(made.reader(verify=True).recent(10**6))),
        ("sampled and seen", sampled["sampled"], sampled["seen"]),
        ("balance", balance(made.control), 0),
    ):
        if ours != theirs:
            wrong.append(f"{what}: {ours} and {theirs}")
    return wrong, {**stats, **sampled}


@pytest.mark.timeout(3600)
def test_promise_14_overwriting_is_counted(channel: MakeChannel, nursery: Any) -> None:
    """Every record is in the ring or counted as overwritten; every row looked at was returned or given up."""
    count = size(20_000, 2_000_000)
    wrong, counts = reconcile(channel, nursery, "Lane", count)
    assert wrong == []
    assert counts["overwritten"] == count - 50
    figure(14, f"exact: {counts['total_added']:,} = {counts['size']} + {counts['overwritten']:,} overwritten")


def test_a_forgotten_count_is_found(channel: MakeChannel, nursery: Any) -> None:
    """The same sums find one missed count in a hundred."""
    wrong, _ = reconcile(channel, nursery, "Uncounted", 2_000)
    assert wrong
