"""What becomes of an engine in a forked child, and of one whose instance was stopped."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

from tandem.inference_proc.engine import Engine
from tandem.shared.errors import LaneBusy, TandemError
from tandem.shared.memory.segments import remove_instance

EngineOf = Callable[..., Engine]
OBSERVATION = [0.1, 0.2, 0.3, 0.4]


def in_child(action: Callable[[], bool]) -> bool:
    """Fork, run `action` in the child and say whether it returned True."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if action() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def refused(engine: Engine) -> bool:
    """True if every call that would touch the lane is refused, naming the remedy."""
    calls = (
        lambda: engine.decide("a", OBSERVATION),
        lambda: engine.reward("a", 1.0),
        lambda: engine.forget("a"),
        engine.get_model_for_inference,
        engine.beat,
        engine.mark_ready,
    )
    for call in calls:
        try:
            call()
        except TandemError as error:
            if "Engine.attach in the child" not in str(error):
                return False
        else:
            return False
    engine.close()
    return True


def test_a_forked_engine_refuses_to_decide(engine_of: EngineOf) -> None:
    """The child's copy raises; the parent's goes on, its lane and what is pending in it untouched."""
    engine = engine_of()
    engine.decide("a", OBSERVATION)
    before = engine.control.lane(0)
    assert in_child(lambda: refused(engine))
    assert engine.control.lane(0) == before
    assert engine.reward("a", 0.5)
    assert engine.get_stats()["completed"] == 1


def test_a_child_attaches_for_itself(engine_of: EngineOf) -> None:
    """It gets a lane of its own."""
    engine = engine_of()

    def attach() -> bool:
        own = Engine.attach(engine.instance.name, timeout=0)
        return own.lane.index == 1 and own.decide("b", OBSERVATION).version == 0

    assert in_child(attach)
    assert engine.get_stats()["decided"] == 1


def test_a_fork_does_not_hold_the_parents_lane(engine_of: EngineOf) -> None:
    """When the parent gives its lane back it is free, though a forked child still lives."""
    engine = engine_of(inference={"lanes": 1})
    release, hold = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(hold)
        os.read(release, 1)
        os._exit(0)
    try:
        deadline_reached = False
        engine.close()
        for _ in range(2000):
            try:
                Engine.attach(engine.instance.name, timeout=0).close()
                break
            except LaneBusy:
                continue
        else:
            deadline_reached = True
        assert not deadline_reached
    finally:
        os.close(hold)
        os.close(release)
        os.waitpid(pid, 0)


def test_an_orphaned_engine_says_so(engine_of: EngineOf) -> None:
    """When the instance is stopped under it the engine still decides, and `is_orphaned` turns true."""
    engine = engine_of()
    assert not engine.is_orphaned
    remove_instance(engine.instance.name)
    assert engine.is_orphaned
    assert engine.decide("a", OBSERVATION).version == 0
