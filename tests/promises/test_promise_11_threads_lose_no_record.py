"""Threads of one server share a lane and lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proof import figure, size

THREADS = 4


@pytest.mark.timeout(3600)
def test_promise_11_threads_lose_no_record(channel: Callable[..., Any], nursery: Any) -> None:
    """Four threads append; every record is there, once and whole."""
    each = size(4_000, 100_000)
    made = channel(capacity=THREADS * each)
    found = nursery.run("threads_append", name=made.name, lane="Lane", threads=THREADS, each=each)
    assert found == {"head": THREADS * each, "whole": THREADS * each, "wrong": 0, "decided": THREADS * each}
    figure(11, f"{found['whole']:,} of {THREADS * each:,}")


def test_without_the_lock_records_are_lost(channel: Callable[..., Any], nursery: Any) -> None:
    """The same count finds what four threads lose without it."""
    each = 20_000
    made = channel(capacity=THREADS * each)
    found = nursery.run("threads_append", name=made.name, lane="Lockless", threads=THREADS, each=each)
    assert found["whole"] < THREADS * each
    figure(11, f"control without the lock: {found['whole']:,} of {THREADS * each:,}")
