"""Crashes and new starts leave no file behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from channel_kit import make_channel
from proof import Planted, at_line, figure, lines_of, raise_planted, size
from tandem.shared.errors import SegmentError
from tandem.shared.memory.control import Control
from tandem.shared.memory.segments import FOLDER, list_segments, remove_instance


def left_after(name: str, nursery: Any, cycles: int, sweep: Callable[[str], Any]) -> list[str]:
    """Create and crash, alternately at some line of the creation and while running; sweep; what is left."""
    before = set(os.listdir(FOLDER))
    lines = lines_of(lambda: make_channel(name).control.close())
    remove_instance(name)
    for cycle in range(cycles):
        if cycle % 2:
            nursery.start("create_and_die", name=name).wait()
        else:
            with contextlib.suppress(Planted, SegmentError):
                at_line(lambda: make_channel(name).control.close(), lines * (cycle + 1) // cycles, raise_planted)
        with contextlib.suppress(SegmentError, OSError):
            sweep(name)
    mine = {entry for entry in set(os.listdir(FOLDER)) - before if name in entry}
    return sorted(mine)


@pytest.mark.timeout(3600)
def test_promise_17_no_leaks(instance_name: str, nursery: Any) -> None:
    """After each crash the sweep leaves nothing, so that the next start finds an empty place."""
    cycles = size(20, 100)
    assert left_after(instance_name, nursery, cycles, remove_instance) == []
    assert list_segments(instance_name) == {}
    figure(17, f"0 extra files after {cycles} cycles")


def test_a_sweep_of_complete_instances_only_leaks(instance_name: str, nursery: Any) -> None:
    """The same cycles find a sweep that believes the control segment's magic."""

    def sweep(name: str) -> None:
        Control.attach(name, timeout=0).close()
        remove_instance(name)

    assert left_after(instance_name, nursery, 4, sweep)
    for path in Path(FOLDER).glob(f"*{instance_name}*"):
        path.unlink()
