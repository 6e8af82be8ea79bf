"""An exception that arrives anywhere in a call (a time limit, Ctrl-C) leaves an engine that goes on as before."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hostile_kit import accounted
from proof import Planted, at_line, raise_planted
from tandem.inference_proc.engine import Engine
from tandem.shared.weights.flat_model import FlatModel
from tandem.shared.weights.publisher import Publisher

EngineOf = Callable[..., Engine]


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    """Planted at a line at which Python never looks for signals, an exception may leave torch's mode switched off."""
    yield
    torch.set_grad_enabled(True)


@pytest.fixture(autouse=True)
def no_garbage() -> Iterator[None]:
    """No destructor of another test's objects runs in the middle of a call, and takes its exception."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Publishing:
    """Publishes versions whose weights all have the version's value."""

    def __init__(self, engine: Engine) -> None:
        self.flat = FlatModel(engine.application.build_model())
        self.publisher = Publisher(engine.instance.open_slots(self.flat.layout))
        self.version = 0

    def publish(self) -> None:
        self.version += 1
        with torch.no_grad():
            for tensor in self.flat.state().values():
                tensor.fill_(self.version / 64)
        self.publisher.publish(self.flat.flat, self.version)


def values(engine: Engine) -> set[float]:
    """Every value in the weights that decide."""
    return {float(value) for tensor in engine.policy.model.state_dict().values() for value in tensor.unique()}


@pytest.mark.parametrize("in_place", [False, True], ids=["copied", "in place"])
def test_taking_new_weights_can_be_interrupted_at_any_line(engine_of: EngineOf, in_place: bool) -> None:
    """The next decision is made with the newest weights, all of one version, and says which."""
    engine = engine_of(weights={"in_place_bytes": 1 if in_place else 2**40, "slots": 4})
    publishing, line, reached = Publishing(engine), 0, True
    while reached:
        line += 1
        publishing.publish()
        with contextlib.suppress(Planted):
            reached = at_line(engine.get_model_for_inference, line, raise_planted)
        if line % 2:
            publishing.publish()
        decision = engine.decide("a", [1, 2, 3, 4])
        assert (decision.version, values(engine)) == (publishing.version, {publishing.version / 64}), line
    assert line > 25


CALLS: dict[str, Callable[[Engine], Any]] = {
    "decide": lambda engine: engine.decide("a", np.array([0.5, 1])),
    "decide_many": lambda engine: engine.decide_many([("a", [0.5, 1], ""), ("b", [0.5, -1], "")]),
    "reward": lambda engine: engine.reward("a", 0.5),
    "forget": lambda engine: engine.forget("a"),
    "failed": lambda engine: engine.failed("a", engine._recorder._keys["a"].action),
    "beat": lambda engine: engine.beat(),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_can_be_interrupted_at_any_line(engine_of: EngineOf, rewarding_application: str, name: str) -> None:
    """Every entry answers afterwards, in another thread too, and the weights are the newest."""
    engine = engine_of(application=rewarding_application, trainer={"lock_timeout": 0.002})
    publishing, line, reached = Publishing(engine), 0, True
    while reached:
        line += 1
        engine.decide("a", [0.25, 1])
        publishing.publish()
        with contextlib.suppress(Planted, ValueError):
            reached = at_line(lambda: CALLS[name](engine), line, raise_planted)
        answers: list[Any] = []
        thread = threading.Thread(
            target=lambda found: found.append(engine.decide("other", [0.5, 1])), args=(answers,), daemon=True
        )
        thread.start()
        thread.join(20)
        assert [answer.version for answer in answers] == [publishing.version], line
        assert values(engine) == {publishing.version / 64}, line
        assert engine.decide("a", [0.25, 1]).action
        assert engine.reward("a", 0.5) in (True, False)
        assert set(engine._recorder._keys) <= {"a", "b", "other"}
        assert accounted(engine), line
    assert line > 10
