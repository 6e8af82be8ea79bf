"""A process may die before any line of publish, append, complete or defer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proof import figure

MakeChannel = Callable[..., Any]


@pytest.mark.parametrize("slots", [2, 3, 4])
def test_promise_05_publish(channel: MakeChannel, nursery: Any, slots: int) -> None:
    """Killed before any line, the announced version is whole, and the next publisher goes on."""
    made = channel(slots=slots)
    found = nursery.run("crash_at_every_line", name=made.name, what="publish", writer="Publisher")
    assert found["bad"] == []
    assert found["lines"] >= 8
    figure(5, f"publish: {found['lines']} of {found['lines']} lines, {slots} slots")


@pytest.mark.parametrize("what", ["append", "append_many", "complete", "defer"])
def test_promise_05_ring_and_pending(channel: MakeChannel, nursery: Any, what: str) -> None:
    """Killed before any line, at most the record in flight is lost and counted; nothing is torn or counted twice."""
    made = channel(capacity=8, pending=4)
    found = nursery.run("crash_at_every_line", name=made.name, what=what, writer="Lane")
    assert found["bad"] == []
    assert found["lines"] >= 8
    assert found["status"] == 0
    figure(5, f"{what}: {found['lines']} of {found['lines']} lines")


@pytest.mark.parametrize(("what", "writer"), [("publish", "CounterFirst"), ("append", "ValidFirst")])
def test_another_order_of_the_stores_is_found_out(channel: MakeChannel, nursery: Any, what: str, writer: str) -> None:
    """The same enumeration fails on a writer that announces before it has written."""
    made = channel(capacity=8, pending=4)
    assert nursery.run("crash_at_every_line", name=made.name, what=what, writer=writer)["bad"]


def test_one_slot_is_found_out(channel: MakeChannel, nursery: Any) -> None:
    """The same enumeration fails on a single slot."""
    made = channel(slots=1)
    assert nursery.run("crash_at_every_line", name=made.name, what="publish", writer="Publisher")["bad"]
