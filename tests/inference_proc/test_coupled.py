"""With `enabled: false` the server trains on each experience as it comes, and replies do not change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from tandem.inference_proc.engine import Engine
from tandem.shared.instance import Instance
from tandem.shared.stats import training_stats

EngineOf = Callable[..., Engine]


def test_each_reward_is_one_training_step(engine_of: EngineOf, rewarding_application: str) -> None:
    """A SEND trains when its reward comes, a WAIT at once, an unaffordable WAIT never."""
    engine = engine_of(application=rewarding_application, trainer={"enabled": False})
    assert not engine.enabled
    assert engine.decide("a", np.array([0.1, 1], np.float32)).version == 0
    assert engine.model_version == 0
    assert engine.decide("a", np.array([0.4, 1], np.float32)).version == 1
    engine.decide("b", np.array([0.4, -1], np.float32))
    assert engine.model_version == 2
    engine.decide("c", np.array([0.4, 0.25], np.float32))
    assert engine.model_version == 2
    stats = training_stats(engine.control)
    assert stats["enabled"] is False
    assert stats["is_running"] is False


def test_training_moves_the_policy_towards_what_pays(engine_of: EngineOf) -> None:
    """Coupled training on one rewarded place makes that place likelier."""
    engine = engine_of(trainer={"enabled": False, "learning_rate": 0.02})
    observation = np.ones(4, np.float32)
    for _ in range(400):
        action = engine.decide("a", observation).action
        engine.reward("a", 1.0 if action[0] == 2 else -1.0)
    chosen = [engine.decide("a", observation).action[0] for _ in range(100)]
    assert chosen.count(2) > 50


def test_gradients_that_the_server_switched_off_are_on_in_training(engine_of: EngineOf) -> None:
    """A server that needs no gradients itself may say so."""
    engine = engine_of(trainer={"enabled": False})
    before = engine._flat.flat.clone()
    torch.set_grad_enabled(False)
    try:
        engine.decide("a", np.ones(4, np.float32))
        engine.reward("a", 1.0)
    finally:
        torch.set_grad_enabled(True)
    assert engine.model_version == 1
    assert not torch.equal(engine._flat.flat, before)


def test_only_one_server_process_trains(engine_of: EngineOf) -> None:
    """A second server process takes the first one's versions instead of publishing its own."""
    trainer = engine_of(trainer={"enabled": False})
    follower = Engine(Instance(trainer.instance.name))
    try:
        follower.decide("b", np.ones(4, np.float32))
        follower.reward("b", 1.0)
        assert trainer.model_version == 0
        trainer.decide("a", np.ones(4, np.float32))
        trainer.reward("a", 1.0)
        assert follower.decide("c", np.ones(4, np.float32)).version == 1
    finally:
        follower.close()


def test_every_step_changes_the_weights_in_use(engine_of: EngineOf) -> None:
    """What is trained, what is published and what decides are the same weights, after every single step."""
    engine = engine_of(trainer={"enabled": False})
    observation = np.ones(4, np.float32)
    before = None
    for step in range(1, 9):
        engine.decide("a", observation)
        engine.reward("a", 1.0)
        decision = engine.decide("b", observation)
        engine.forget("b")
        assert decision.version == step
        published = engine._slots.data[step % engine._slots.count]
        in_use = {name: value.clone() for name, value in engine.get_model_for_inference().state_dict().items()}
        assert torch.equal(engine._flat.flat, published)
        if before is not None:
            assert any(not torch.equal(in_use[name], before[name]) for name in in_use), f"step {step} changed nothing"
        before = in_use
