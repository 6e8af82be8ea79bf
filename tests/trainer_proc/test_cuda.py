"""Training on a CUDA device: the same promises as on the processor, by way of pinned staging.

Skipped on a machine without one; `pytest tests/trainer_proc/test_cuda.py` on a machine that has one runs them all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tandem.inference_proc.engine import Engine
from tandem.shared.instance import Instance
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.trainer_proc.trainer import ContinuousTrainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


def feed(engine: Engine, count: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(count):
        key = f"k{number % 50}"
        action = engine.decide(key, rng.random(4, dtype=np.float32)).action
        engine.reward(key, 1.0 if action[0] == 2 else 0.0)


def test_training_happens_on_the_device(toy_instance: Callable[..., Any]) -> None:
    """`auto` takes the device; the published weights are those of the device, byte for byte."""
    instance = toy_instance()
    engine = Engine(instance)
    feed(engine, 100)
    trainer = ContinuousTrainer(instance.build_model(), ExperienceReplayBuffer(instance, seed=1))
    assert trainer.device.type == "cuda"
    for _ in range(20):
        assert trainer.train_step()
    assert trainer.model_version == 20
    assert engine.decide("a", np.ones(4, np.float32)).version == 20
    live = engine.get_model_for_inference().state_dict()
    for name, tensor in trainer.flat.model.state_dict().items():
        assert tensor.is_cuda
        assert torch.equal(tensor.cpu(), live[name])
    engine.close()


def test_nothing_bad_leaves_the_device(toy_instance: Callable[..., Any]) -> None:
    """A candidate with a value that is not finite is refused on the device too, and training goes on."""
    instance = toy_instance()
    engine = Engine(instance)
    feed(engine, 100)
    trainer = ContinuousTrainer(instance.build_model(), ExperienceReplayBuffer(instance, seed=1))
    assert trainer.train_step()
    step = trainer.learner.step

    def spoil(batch: Any) -> Any:
        result = step(batch)
        next(trainer.flat.model.parameters()).data.view(-1)[0] = float("nan")
        trainer.learner.step = step  # type: ignore[method-assign]
        return result

    trainer.learner.step = spoil  # type: ignore[method-assign]
    assert not trainer.train_step()
    assert trainer.model_version == 1
    assert trainer.train_step()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in engine.get_model_for_inference().parameters())
    engine.close()


def test_a_killed_trainer_goes_on_where_it_was(
    toy_instance: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    """The trainer process on the device survives kill -9: the next one publishes a higher version."""
    instance: Instance = toy_instance(trainer={"checkpoint_interval": 0.2, "device": "cuda"})
    engine = Engine(instance)
    feed(engine, 200)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "tandem.trainer_proc", "--instance", instance.name])

    first = start()
    try:
        wait_until(lambda: engine.model_version > 50, "versions on the device", 120)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    before = engine.model_version
    second = start()
    try:
        wait_until(lambda: engine.model_version > before + 20, "versions after the restart", 120)
        feed(engine, 10)
    finally:
        second.terminate()
        assert second.wait(30) == 0
    engine.close()
