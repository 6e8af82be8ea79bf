"""A sweep removes dead instances only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from channel_kit import attach_channel, wrong_rows
from proof import figure, size
from tandem.shared.memory.control import Control
from tandem.shared.memory.processes import is_same_process
from tandem.shared.memory.segments import list_segments, remove_instance
from tandem.supervisor.commands.clean import sweep

MakeChannel = Callable[..., Any]
USERS = {
    "a writing server": ("write_rows", {}),
    "an idle server": ("hold_lane", {}),
    "a trainer": ("hold_trainer_lock", {}),
    "a supervisor": ("hold_instance_lock", {}),
}


def hits(made: Any, nursery: Any, user: str, clean: Callable[[str], Any], sweeps: int) -> int:
    """Sweep while somebody lives; how often a segment went."""
    target, arguments = USERS[user]
    child = nursery.start(target, name=made.name, **arguments).ready()
    before = set(list_segments(made.name)[made.name]) - {"lock"}
    hit = 0
    for _ in range(sweeps):
        clean(made.name)
        if set(list_segments(made.name).get(made.name, [])) - {"lock"} != before:
            hit += 1
            break
    child.stop()
    return hit


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("user", list(USERS))
def test_promise_18_a_sweep_spares_the_living(channel: MakeChannel, nursery: Any, user: str) -> None:
    """As long as anybody holds a part of it, an instance stays whole; then it goes altogether."""
    made = channel()
    sweeps = size(50, 1000)
    assert hits(made, nursery, user, sweep, sweeps) == 0
    rows = attach_channel(made.name).reader(verify=True).recent(100)
    assert wrong_rows(rows) == 0
    assert (len(rows) > 0) == (user == "a writing server")
    sweep(made.name)
    assert list_segments(made.name) == {}
    figure(18, f"0 in {len(USERS) * sweeps:,} sweeps")


def test_a_sweep_that_asks_for_the_supervisor_only_hits_a_server(channel: MakeChannel, nursery: Any) -> None:
    """The same sweeps find one that knows supervised processes only."""

    def careless(name: str) -> None:
        control = Control.attach(name)
        alive = is_same_process(control.get("supervisor.pid"), control.get("supervisor.start_ticks"))
        control.close()
        if not alive:
            remove_instance(name)

    assert hits(channel(), nursery, "an idle server", careless, 3) == 1
