"""Readers almost never find the announced slot in the making."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proof import figure, size


def misses(channel: Callable[..., Any], nursery: Any, slots: int, reads: int) -> Any:
    """1 MiB of weights, a publish every millisecond."""
    made = channel(slots=slots, weights_bytes=1 << 20)
    writer = nursery.start("publish", name=made.name, interval=0.001).ready()
    found = nursery.run("read_weights", name=made.name, subscriber="Subscriber", reads=reads)
    writer.stop()
    return found


@pytest.mark.timeout(3600)
def test_promise_03_readers_almost_never_retry(channel: Callable[..., Any], nursery: Any) -> None:
    """At most one look in a hundred misses, and never more than three in a row."""
    found = misses(channel, nursery, 4, size(1_000, 50_000))
    assert found["torn"] == 0
    assert found["missed"] <= 0.01 * found["looks"]
    assert found["longest"] <= 3
    figure(3, f"{found['missed'] / found['looks']:.4f} misses per look, at most {found['longest']} in a row")


def test_with_one_slot_readers_retry(channel: Callable[..., Any], nursery: Any) -> None:
    """The same count finds the misses of a single slot."""
    found = misses(channel, nursery, 1, 300)
    assert found["missed"] > 0.01 * found["looks"]
