"""Signals and exceptions in the middle of a publish or an append corrupt nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proof import figure, size

MakeChannel = Callable[..., Any]


@pytest.mark.timeout(3600)
def test_promise_06_a_storm_of_signals(channel: MakeChannel, nursery: Any) -> None:
    """Whatever line a handler raises from, the announced version can be read and publishing goes on."""
    made = channel(slots=4, weights_bytes=1 << 16)
    signals = size(100, 400)
    found = nursery.run("publish_under_signals", name=made.name, publisher="Publisher", signals=signals, seed=1)
    assert found["bad"] == 0
    assert found["version"] > signals // 2
    figure(6, f"0 of {signals} signals; {found['version']:,} versions published meanwhile")


def test_a_storm_finds_the_fault_of_one_slot(channel: MakeChannel, nursery: Any) -> None:
    """The same storm leaves a single slot odd in a living process."""
    made = channel(slots=1, weights_bytes=1 << 16)
    found = nursery.run("publish_under_signals", name=made.name, publisher="Publisher", signals=60, seed=1)
    assert found["bad"] > 0


@pytest.mark.parametrize("what", ["publish", "append", "append_many"])
def test_promise_06_an_exception_at_every_line(channel: MakeChannel, nursery: Any, what: str) -> None:
    """An exception before any line leaves everything readable, the next call works, and the next owner's sums agree."""
    made = channel(capacity=8, pending=4)
    writer = "Publisher" if what == "publish" else "Lane"
    found = nursery.run("raise_at_every_line", name=made.name, what=what, writer=writer)
    assert found["bad"] == []
    assert found["lines"] >= 8


def test_an_exception_finds_the_fault_of_another_order(channel: MakeChannel, nursery: Any) -> None:
    """The same exceptions find a row that is valid before it is written."""
    made = channel(capacity=8, pending=4)
    assert nursery.run("raise_at_every_line", name=made.name, what="append", writer="ValidFirst")["bad"]
