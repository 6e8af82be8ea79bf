"""A process may die before any line of publish, append, complete or defer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest
from channel_kit import fill, is_whole
from proof import STEPS, Planted, at_line, figure, raise_planted
from tandem.shared.weights.subscriber import Look

MakeChannel = Callable[..., Any]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("slots", [2, 3, 4])
def test_promise_05_publish(channel: MakeChannel, nursery: Any, slots: int, steps: int) -> None:
    """Killed before any line, the announced version is whole, and the next publisher goes on."""
    made = channel(slots=slots)
    what = "publish" if steps == 1 else f"publish {steps}"
    found = nursery.run("crash_at_every_line", name=made.name, what=what, writer="Publisher")
    assert found["bad"] == []
    assert found["lines"] >= 8
    figure(5, f"publish: {found['lines']} of {found['lines']} lines, {slots} slots, {steps} at once")


@pytest.mark.parametrize("slots", [2, 3, 4])
def test_promise_05_what_a_dead_publisher_did_not_announce_is_never_taken(channel: MakeChannel, slots: int) -> None:
    """A publisher that stops in version v + 8; the next one publishes v + 4 and then its own v + 8."""
    made = channel(slots=slots)
    reader, room, other = made.subscriber(verify=True), made.room(), fill(made.room(), 999_999)
    for line in count(1):
        before, reached = made.control.get("version"), True
        with contextlib.suppress(Planted):
            reached = at_line(partial(made.publisher().publish, other, before + 8), line, raise_planted)
        if not reached:
            break
        if made.control.get("version") != before:
            continue
        publisher = made.publisher()
        for version in (before + 4, before + 8):
            made.publish(publisher, version)
            assert reader.refresh(room) is Look.TAKEN
            assert reader.version == version
            assert is_whole(room, version)
    assert line > 8


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
