"""A publisher that is killed at any moment leaves a version that can be read at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proof import STEPS, figure, size


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("steps", STEPS)
def test_promise_04_a_dead_publisher_blocks_nobody(channel: Callable[..., Any], nursery: Any, steps: int) -> None:
    """After each SIGKILL the announced version is whole and taken at the first look; the next publisher goes on."""
    made = channel(slots=4, weights_bytes=1 << 18)
    kills = size(60, 1000)
    found = nursery.run("kill_publishers", name=made.name, publisher="Publisher", kills=kills, seed=1, steps=steps)
    assert found["unreadable"] == found["torn"] == found["back"] == 0
    assert found["caught"] > 0
    assert found["version"] > kills
    caught = f"{found['caught']:,} in the middle of a publish"
    figure(4, f"0 of {kills:,} kills ({caught}), {steps} at once")


def test_a_single_slot_is_not_enough(channel: Callable[..., Any], nursery: Any) -> None:
    """With one slot the same kills leave readers without any weights."""
    made = channel(slots=1, weights_bytes=1 << 18)
    found = nursery.run("kill_publishers", name=made.name, publisher="Publisher", kills=40, seed=1)
    assert found["unreadable"] > 0
