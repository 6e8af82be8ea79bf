"""No reader ever gets a policy that is part one version and part another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proof import STEPS, figure, size

READS = {256: size(5_000, 10_000_000), 1 << 20: size(500, 100_000)}


def race(
    channel: Callable[..., Any],
    nursery: Any,
    publisher: str,
    subscriber: str,
    slots: int,
    length: int,
    reads: int,
    enough: int = 10**9,
    steps: int = 1,
) -> Any:
    """Publish at full rate and read at full rate, in two processes."""
    made = channel(slots=slots, weights_bytes=length)
    writer = nursery.start("publish", name=made.name, publisher=publisher, steps=steps).ready()
    found = nursery.run("read_weights", name=made.name, subscriber=subscriber, reads=reads, enough=enough)
    writer.stop()
    return found


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("length", [256, 1 << 20])
def test_promise_01_no_torn_policy(channel: Callable[..., Any], nursery: Any, length: int, steps: int) -> None:
    """Every word of every version taken is that version's, with the publisher at full rate."""
    found = race(channel, nursery, "Publisher", "Subscriber", 4, length, READS[length], steps=steps)
    assert found["taken"] == READS[length]
    assert found["torn"] == found["older"] == 0
    figure(1, f"{found['torn']} torn in {found['taken']:,} reads of {length:,} bytes, {steps} at once")


@pytest.mark.parametrize(("publisher", "subscriber"), [("NoOddMark", "Subscriber"), ("Publisher", "Unguarded")])
def test_without_the_protocol_policies_are_torn(
    channel: Callable[..., Any], nursery: Any, publisher: str, subscriber: str
) -> None:
    """The same check finds torn policies if the writer sets no odd mark or the reader looks at none."""
    found = race(channel, nursery, publisher, subscriber, 1, 1 << 20, 1_000_000, 1)
    assert found["torn"] > 0
    figure(1, f"control ({publisher}, {subscriber}): {found['torn']:,} of {found['taken']:,} torn")
