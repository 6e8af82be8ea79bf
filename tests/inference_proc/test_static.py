"""Deciding without an instance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tandem.inference_proc.engine import Engine
from tandem.inference_proc.static import StaticEngine, open_engine
from tandem.shared.configuration.config import Config, parse
from tandem.shared.errors import CheckpointError, SegmentMissing
from tandem.shared.instance import Instance
from tandem.shared.memory.segments import list_segments
from tandem.shared.weights.checkpoints import CheckpointStore
from tandem.shared.weights.flat_model import FlatModel

OBSERVATION = [0.1, 0.2, 0.3, 0.4]


@pytest.fixture
def settings(toy_application: str, tmp_path: Path) -> Callable[[bool], Config]:
    """`settings(fallback)`: a configuration of the toy."""

    def make(fallback: bool = True) -> Config:
        inference = {"static_fallback": fallback, "attach_timeout": 0.05, "seed": 3}
        plain = {"application": toy_application, "data_dir": str(tmp_path / "data"), "inference": inference}
        return parse(plain, "the test's configuration")

    return make


def save(config: Config, instance: str, version: int) -> None:
    """A checkpoint that always chooses place 4 and kind 1."""
    from tandem.shared.application import load_application

    flat = FlatModel(load_application(config.application, {}, Path()).build_model())
    bias = torch.full((7,), -100.0)
    bias[4] = bias[6] = 100.0
    with torch.no_grad():
        flat.state()["layer.bias"].copy_(bias)
    CheckpointStore(Path(config.data_dir) / instance / "checkpoints").save(version, flat.state(), {}, {})


def test_the_newest_checkpoint_decides(settings: Callable[..., Config], instance_name: str) -> None:
    """Without an instance its weights decide, under their version, and no shared memory is made."""
    config = settings()
    save(config, instance_name, 7)
    engine = open_engine(config, instance_name)
    assert isinstance(engine, StaticEngine)
    decision = engine.decide("a", OBSERVATION)
    assert (decision.action, decision.version, decision.send) == ((4, 1), 7, True)
    assert decision.probability == pytest.approx(1.0)
    assert not engine.reward("a", 1.0)
    assert engine.decide("a", OBSERVATION).last_reward is None
    first, second = engine.decide_many([("a", OBSERVATION, ""), ("b", "text", "")])
    assert isinstance(second, Exception)
    assert not isinstance(first, Exception)
    assert list_segments(instance_name) == {}


def test_it_must_be_asked_for(settings: Callable[..., Config], instance_name: str) -> None:
    """By default a missing instance is an error, even if there is a checkpoint."""
    save(settings(), instance_name, 7)
    with pytest.raises(SegmentMissing):
        open_engine(settings(fallback=False), instance_name)


def test_without_weights_there_is_nothing_to_fall_back_on(settings: Callable[..., Config], instance_name: str) -> None:
    """Random weights never decide."""
    with pytest.raises(CheckpointError, match="no weights"):
        open_engine(settings(), instance_name)


def test_an_instance_that_is_there_is_used(toy_instance: Callable[..., Instance], instance_name: str) -> None:
    """The fallback is for its absence only."""
    config = toy_instance(inference={"static_fallback": True}).config
    engine = open_engine(config, instance_name)
    assert isinstance(engine, Engine)
    engine.close()


def test_the_gate_judges_and_may_fail(
    rewarding_application: str, settings: Callable[..., Config], instance_name: str, tmp_path: Path
) -> None:
    """Verdicts are those of the application's gate; one that raises holds the action back."""
    import dataclasses

    trainer = dataclasses.replace(settings().trainer, learner="policy_gradient")
    config = dataclasses.replace(settings(), application=rewarding_application, trainer=trainer)
    from tandem.shared.application import load_application

    flat = FlatModel(load_application(rewarding_application, {}, tmp_path).build_model())
    CheckpointStore(Path(config.data_dir) / instance_name / "checkpoints").save(3, flat.state(), {}, {})
    engine = StaticEngine(config, instance_name)
    assert engine.decide("a", np.array([0.1, 0.5], np.float32)).send
    assert not engine.decide("a", np.array([0.1, -0.5], np.float32)).send
    broken = engine.decide("a", np.array([0.95, 0.5], np.float32))
    assert (broken.send, broken.reason, broken.components) == (False, "gate_error", (0.0,))


def test_the_environment_names_the_instance(
    toy_instance: Callable[..., Instance], instance_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `ctl` starts attaches without naming the instance."""
    toy_instance()
    monkeypatch.setenv("TANDEM_INSTANCE", instance_name)
    engine: Any = Engine.attach(timeout=0)
    assert engine.instance.name == instance_name
    engine.close()
