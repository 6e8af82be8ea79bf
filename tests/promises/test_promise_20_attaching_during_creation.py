"""Who attaches while an instance is being created waits or fails cleanly; nobody sees zeros."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from channel_kit import attach_channel, is_whole, make_channel
from proof import at_line, figure
from tandem.shared.errors import SegmentInvalid, SegmentMissing
from tandem.shared.memory.control import Control
from tandem.shared.memory.segments import remove_instance
from tandem.shared.weights.subscriber import Look


def looks_during(name: str, create: Callable[[], Any]) -> tuple[int, int, int]:
    """Stop the creator before each of its lines in turn and attach: lines, clean refusals, incomplete attachments."""
    refused = incomplete = line = 0
    reached = True
    while reached:
        line += 1
        outcome: list[str] = []

        def look(outcome: list[str] = outcome) -> None:
            thread = threading.Thread(target=lambda: outcome.append(attach_now(name)))
            thread.start()
            thread.join()

        reached = at_line(create, line, look)
        refused += outcome == ["refused"]
        incomplete += outcome == ["incomplete"]
        assert outcome != ["raised"]
        remove_instance(name)
    return line - 1, refused, incomplete


def attach_now(name: str) -> str:
    """Try to attach and use everything, without waiting."""
    try:
        made = attach_channel(name, timeout=0)
    except (SegmentMissing, SegmentInvalid):
        return "refused"
    try:
        room, subscriber = made.room(), made.subscriber()
        good = subscriber.refresh(room) is Look.TAKEN and is_whole(room, subscriber.version)
        made.reader().sample(1)
        made.claim().release()
        return "complete" if good else "incomplete"
    except Exception:
        return "incomplete"
    finally:
        made.control.close()


def test_promise_20_a_paused_creator(instance_name: str) -> None:
    """At every line of the creation an attacher is refused with a typed error, until all is complete."""
    lines, refused, incomplete = looks_during(
        instance_name, lambda: make_channel(instance_name, capacity=2, pending=1, slots=2).control.close()
    )
    assert incomplete == 0
    assert lines > 100
    assert refused > 0.9 * lines
    figure(20, f"0 of {lines} stops of the creator showed anything incomplete")


def test_a_magic_that_comes_first_shows_zeros(instance_name: str) -> None:
    """The same stops find a creator that declares the control segment valid at once."""

    def create() -> None:
        created = Control.create

        def early(*arguments: Any) -> Control:
            control = created(*arguments)
            control.finish()
            return control

        with contextlib.ExitStack() as stack:
            Control.create = early  # type: ignore[method-assign]
            stack.callback(setattr, Control, "create", created)
            make_channel(instance_name, capacity=2, pending=1, slots=2).control.close()

    assert looks_during(instance_name, create)[2] > 0


def test_promise_20_attaching_waits_up_to_its_timeout(instance_name: str) -> None:
    """An attacher with a timeout gets the complete instance, however late; without one in time, a typed error."""
    found: list[str] = []
    started = threading.Event()

    def attach() -> None:
        started.set()
        made = attach_channel(instance_name, timeout=60)
        room, subscriber = made.room(), made.subscriber()
        found.append("whole" if subscriber.refresh(room) is Look.TAKEN and is_whole(room, 0) else "zeros")
        made.control.close()

    thread = threading.Thread(target=attach)
    thread.start()
    started.wait(30)
    made = make_channel(instance_name, finish=False)
    with contextlib.suppress(SegmentInvalid):
        Control.attach(instance_name, timeout=0.05)
        raise AssertionError("an unfinished instance was attached")
    made.control.finish()
    thread.join(60)
    assert found == ["whole"]
    made.control.close()
