"""Who uses an instance: processes that its control segment names, and flocks on its segments."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tandem.shared.errors import LaneBusy
from tandem.shared.memory.processes import own_identity, start_ticks
from tandem.shared.memory.users import Claimed, living, users
from tandem.shared.weights.publisher import claim_trainer

MakeChannel = Callable[..., Any]


def test_the_living_are_named_once_each(channel: MakeChannel) -> None:
    """Supervisor, children and owners of lanes count while they live; another process of the same number does not."""
    control = channel(lanes=2).control
    assert living(control) == []
    pid, ticks = own_identity()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        for name, start, who in (
            ("supervisor.pid", "supervisor.start_ticks", (pid, ticks)),
            ("process.inference.pid", "process.inference.start_ticks", (pid, ticks)),
            ("process.trainer.pid", "process.trainer.start_ticks", (pid, ticks + 1)),
            ("lane.1.owner", "lane.1.owner_ticks", (child.pid, start_ticks(child.pid))),
        ):
            control.set(name, who[0])
            control.set(start, who[1])
        assert living(control) == sorted({pid, child.pid})
    finally:
        child.communicate(b"\n", timeout=20)
    assert living(control) == [pid]


def test_the_segments_in_use_are_named(channel: MakeChannel) -> None:
    """Rings by their writers, the weights by the trainer; to look takes nothing from anybody."""
    made = channel(lanes=2)
    assert users(made.name) == []
    lane = made.claim()
    with Claimed(made.name, exclusive=False):
        assert users(made.name) == ["ring0"], "two that only look do not see each other"
    descriptor = claim_trainer(made.name)
    assert descriptor is not None
    assert users(made.name) == ["ring0", "weights0"]
    os.close(descriptor)
    lane.release()
    assert users(made.name) == []


def test_while_all_is_claimed_nobody_begins(channel: MakeChannel) -> None:
    """No server gets a lane and no trainer its place before the block ends; what others hold stays theirs."""
    made = channel(lanes=2)
    with Claimed(made.name) as claimed:
        assert claimed.held == []
        with pytest.raises(LaneBusy):
            made.claim()
        assert claim_trainer(made.name) is None
        assert {"ring0", "ring1", "weights0"} <= set(users(made.name))
    lane = made.claim()
    with Claimed(made.name) as claimed:
        assert claimed.held == [f"ring{lane.index}"]
    lane.check()
