"""A closed, forked or replaced engine, server or trainer cannot write: 0 rows, 0 versions."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from channel_kit import add, balance, fill, key_of, value_of, wait_for_reward, wrong_rows
from proof import figure, wait_for
from tandem.inference_proc.engine import Engine
from tandem.shared.errors import LaneBusy, TandemError
from tandem.shared.experiences.lane import Lane
from tandem.shared.instance import Instance
from tandem.shared.memory.segments import remove_instance, segment_path
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.trainer_proc.__main__ import take_trainer_lock

MakeChannel = Callable[..., Any]
OBSERVATION = [0.1, 0.2, 0.3, 0.4]


def bytes_of(name: str, lanes: int) -> bytes:
    """Everything that the lanes hold, counters included."""
    control = Path(segment_path(name, "control")).read_bytes()
    parts = [f"{part}{lane}" for part in ("ring", "pending", "mail") for lane in range(lanes)]
    return b"".join(Path(segment_path(name, part)).read_bytes() for part in parts) + control


CALLS: dict[str, Callable[[Engine], Any]] = {
    "decide": lambda engine: engine.decide("k", OBSERVATION),
    "decide_many": lambda engine: engine.decide_many([("k", OBSERVATION, ""), ("l", OBSERVATION, "")]),
    "reward": lambda engine: engine.reward("k", 1.0),
    "failed": lambda engine: engine.failed("k", (0, 0)),
    "forget": lambda engine: engine.forget("k"),
    "reset": lambda engine: engine.reset(),
    "beat": lambda engine: engine.beat(),
    "mark_ready": lambda engine: engine.mark_ready(),
}


def refused(engine: Engine, name: str, lanes: int = 2) -> int:
    """How many calls were refused with a TandemError and wrote nothing."""
    count = 0
    for call in CALLS.values():
        before = bytes_of(name, lanes)
        try:
            call(engine)
        except TandemError:
            count += bytes_of(name, lanes) == before
    return count


def test_promise_45_a_closed_engine(toy_instance: Callable[..., Instance]) -> None:
    """After close, with the lane given to another, every call that would write raises and writes nothing."""
    name = toy_instance().name
    closed = Engine.attach(name)
    closed.decide("k", OBSERVATION)
    closed.close()
    closed.close()
    owner = Engine.attach(name)
    assert owner.lane.index == closed.lane.index
    assert refused(closed, name) == len(CALLS)
    owner.decide("k", OBSERVATION)
    assert refused(closed, name) == len(CALLS)
    assert owner.reward("k", 0.5)
    owner.close()
    figure(45, f"{2 * len(CALLS)} of {2 * len(CALLS)} calls of a closed engine refused, 0 bytes changed")


def test_promise_45_a_closed_buffer(toy_instance: Callable[..., Instance]) -> None:
    """The same for a replay buffer."""
    from tandem.shared.experiences.experience import Experience

    instance = toy_instance()
    closed = ExperienceReplayBuffer(instance)
    done = Experience(np.ones(4, np.float32), 1, 0, 0.5, "SEND", 0.1, actual_reward=1.0)
    assert closed.add(done)
    closed.close()
    owner = Lane.claim(instance.control, instance.records)
    before = bytes_of(instance.name, 2)
    for call in (lambda: closed.add(done), lambda: closed.update_pending_reward("k", 1.0), closed.clear):
        with pytest.raises(TandemError, match="given back"):
            call()
    assert bytes_of(instance.name, 2) == before
    owner.release()


def test_promise_45_a_forked_child(toy_instance: Callable[..., Instance]) -> None:
    """A child's copies of its parent's engine and buffer write nothing."""
    instance = toy_instance()
    engine, buffer = Engine.attach(instance.name), ExperienceReplayBuffer(instance)
    assert buffer.lane.index == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            all_refused = refused(engine, instance.name) == len(CALLS)
            try:
                buffer.clear()
            except TandemError:
                status = 0 if all_refused else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    engine.decide("k", OBSERVATION)
    assert engine.reward("k", 0.5)
    engine.close()
    buffer.close()


def test_promise_45_an_engine_of_a_removed_instance(toy_instance: Callable[..., Instance]) -> None:
    """An instance made anew under the same name gets nothing from an engine of the old one."""
    from tandem.shared.instance import create_instance

    instance = toy_instance()
    old = Engine.attach(instance.name)
    remove_instance(instance.name)
    create_instance(instance.name, instance.config, fresh=True)
    owner = Engine.attach(instance.name)
    before = bytes_of(instance.name, 2)
    for number in range(20):
        old.decide(f"k{number}", OBSERVATION)
        old.reward(f"k{number}", 1.0)
    old.close()
    assert bytes_of(instance.name, 2) == before
    owner.close()


def stopped_writer(made: Any, nursery: Any, lane: str) -> dict[str, Any]:
    """Stop a writer that has lost its flock, adopt its lane, let it go on; what it did, and what came of the lane."""
    child = nursery.start("write_after_stop", name=made.name, lane=lane)
    wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, "the writer has stopped")
    with pytest.raises(LaneBusy):
        # Its process is to be seen, so the lane is still its own.
        made.claim()
    # As if it were not: a container has process ids of its own.
    made.control.set("lane.0.owner_ticks", 1)
    owner = made.claim()
    wait_for_reward(owner, "b", 5000)
    add(owner, 5001)
    before = bytes_of(made.name, 1)
    child.send(signal.SIGCONT)
    done = child.result()
    done["changed"] = bytes_of(made.name, 1) != before
    assert owner._writer.complete(key_of("b"), value_of(5000)) is not None or done["changed"]
    rows = made.reader(verify=True).recent(100)
    done["rows"], done["wrong"], done["balance"] = rows["version"].tolist(), wrong_rows(rows), balance(made.control)
    return done


def test_promise_45_a_writer_that_was_stopped(channel: MakeChannel, nursery: Any) -> None:
    """A writer whose lane was adopted while it was stopped is refused from then on."""
    done = stopped_writer(channel(), nursery, "Lane")
    assert (done["written"], done["refused"], done["changed"]) == (0, 200, False)
    assert (done["rows"], done["wrong"], done["balance"]) == ([5000, 5001], 0, 0)
    figure(45, "0 rows by a writer that went on after its lane was adopted, 200 tries")


def test_a_writer_that_does_not_look_is_found_out(channel: MakeChannel, nursery: Any) -> None:
    """The same check finds the rows of a writer that does not look whether the lane is its own."""
    done = stopped_writer(channel(), nursery, "Heedless")
    assert done["changed"]
    assert done["written"] > 0


def stopped_trainer(made: Any, nursery: Any, publisher: str) -> dict[str, Any]:
    """Stop a trainer that has lost its flock, start another, let the first go on; what it did."""
    child = nursery.start("publish_after_stop", name=made.name, publisher=publisher)
    wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, "the trainer has stopped")
    lock = take_trainer_lock(made.name)
    end = made.publisher()
    end.publish(fill(made.room(), 2), 2)
    child.send(signal.SIGCONT)
    done: dict[str, Any] = child.result()
    done["version"] = made.control.get("version")
    if not done["written"]:
        end.publish(fill(made.room(), 3), 3)
    os.close(lock)
    return done


def test_promise_45_two_trainers(channel: MakeChannel, nursery: Any) -> None:
    """A trainer that goes on after another has taken over publishes nothing."""
    done = stopped_trainer(channel(), nursery, "Publisher")
    assert (done["written"], done["refused"], done["version"]) == (0, 200, 2)
    figure(45, "0 versions by a trainer that went on after another took over, 200 tries")


def test_a_trainer_that_does_not_look_is_found_out(channel: MakeChannel, nursery: Any) -> None:
    """The same check finds the versions of a trainer that does not look."""
    assert stopped_trainer(channel(), nursery, "HeedlessPublisher")["version"] > 1000


def test_a_second_trainer_is_refused(channel: MakeChannel) -> None:
    """While the first lives and holds the flock."""
    made = channel()
    lock = take_trainer_lock(made.name)
    with pytest.raises(TandemError, match="has a trainer already"):
        take_trainer_lock(made.name)
    os.close(lock)
