"""A counter is read as it was written, never a mixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proof import figure, size

PATTERNS = (0x0101010101010101, 0xFEFEFEFEFEFEFEFE)


def mixtures(channel: Callable[..., Any], nursery: Any, writer: str, reads: int) -> int:
    """Another process stores two patterns in turn; how many reads are neither."""
    made = channel()
    flipper = nursery.start("flip", name=made.name, writer=writer, field="lane.0.progress").ready()
    get, bad = made.control.get, 0
    for _ in range(reads):
        bad += get("lane.0.progress") not in PATTERNS
    flipper.stop()
    return bad


@pytest.mark.timeout(3600)
def test_promise_07_counters_are_whole(channel: Callable[..., Any], nursery: Any) -> None:
    """Neither pattern's halves nor a zero are ever seen."""
    reads = size(300_000, 10_000_000)
    assert mixtures(channel, nursery, "whole", reads) == 0
    figure(7, f"0 in {reads:,} reads")


def test_a_counter_stored_with_pack_into_is_torn(channel: Callable[..., Any], nursery: Any) -> None:
    """The same check sees the zeros that struct.pack_into stores first."""
    reads = 200_000
    bad = mixtures(channel, nursery, "packed", reads)
    assert bad > 0
    figure(7, f"control with pack_into: {bad:,} in {reads:,} reads")
