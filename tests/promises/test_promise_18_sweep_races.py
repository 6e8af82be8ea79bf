"""A server that attaches in the middle of a sweep gets a living instance or a typed error."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from channel_kit import attach_channel, make_channel
from proof import at_line, lines_of, size
from tandem.shared.errors import LaneBusy, SegmentError
from tandem.shared.memory.segments import list_segments, remove_instance
from tandem.supervisor.commands.clean import sweep


def claim_during_sweep(name: str, line: int) -> str:
    """Claim a lane just before one line of a sweep; what became of it."""
    made = make_channel(name)
    os.utime(made.control.path, (1, 1))
    made.control.close()
    outcome: list[Any] = []

    def claim() -> None:
        try:
            outcome.append(attach_channel(name, timeout=0).claim())
        except (SegmentError, LaneBusy) as error:
            outcome.append(error)

    def interrupt() -> None:
        thread = threading.Thread(target=claim)
        thread.start()
        thread.join()

    at_line(lambda: sweep(name), line, interrupt)
    left = list_segments(name).get(name, [])
    remove_instance(name)
    if not outcome or isinstance(outcome[0], SegmentError):
        return ""
    if isinstance(outcome[0], LaneBusy):
        return "" if not left else "a claim was refused and nobody holds the lane"
    outcome[0].release()
    return "" if "ring0" in left and "control" in left else "a living server's segments were removed"


@pytest.mark.timeout(3600)
def test_promise_18_a_sweep_that_meets_a_claim(instance_name: str) -> None:
    """At every line of the sweep: the sweep spares the new owner, or the claim fails cleanly."""
    made = make_channel(instance_name)
    os.utime(made.control.path, (1, 1))
    made.control.close()
    lines = lines_of(lambda: sweep(instance_name))
    faults = {line: claim_during_sweep(instance_name, line) for line in range(1, lines + 1, size(7, 1))}
    assert {line: fault for line, fault in faults.items() if fault} == {}
