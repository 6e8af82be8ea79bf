"""With `enabled: false` the server trains on each experience as it comes, and replies do not change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tandem.inference_proc.engine import Engine
from tandem.shared.errors import ApplicationError
from tandem.shared.instance import Instance
from tandem.shared.telemetry.stats import training_stats

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
    before = engine._live.flat.flat.clone()
    torch.set_grad_enabled(False)
    try:
        engine.decide("a", np.ones(4, np.float32))
        engine.reward("a", 1.0)
    finally:
        torch.set_grad_enabled(True)
    assert engine.model_version == 1
    assert not torch.equal(engine._live.flat.flat, before)


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
        published = engine._live.slots.data[engine._live.slots.find(step)]
        in_use = {name: value.clone() for name, value in engine.get_model_for_inference().state_dict().items()}
        assert torch.equal(engine._live.flat.flat, published)
        if before is not None:
            assert any(not torch.equal(in_use[name], before[name]) for name in in_use), f"step {step} changed nothing"
        before = in_use


MODELS = '''
"""Models that keep something from one forward pass to the next, or cannot do with one observation."""
import torch
from tandem.shared.application import ActionHead, Application


class Normed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2)
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, observations):
        return (self.layer(self.norm(observations)),)


class Cached(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)
        self.kept = None

    def forward(self, observations):
        if self.kept is None:
            self.kept = torch.ones(2) + 0.5 * observations[0]
        return (self.layer(observations * self.kept),)


class Hopeless(Normed):
    def forward(self, observations):
        if torch.is_grad_enabled():
            raise ValueError("two observations at least")
        return super().forward(observations)


def create(settings, folder):
    return Application(
        "odd", ("a", "b"), (ActionHead("arm", 3),), globals()[settings["model"]], reward_range=settings.get("range")
    )
'''


def weights(engine: Engine) -> torch.Tensor:
    """The weights in use: float32 [n]."""
    return engine._live.flat.flat.clone().view(torch.float32)


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_of: EngineOf) -> Callable[..., Engine]:
    """A coupled engine with one of the models above."""
    (tmp_path / "odd_models.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_models", raising=False)
    return lambda model, **settings: engine_of(
        application="odd_models", settings={"model": model, **settings}, trainer={"enabled": False}
    )


def play(engine: Engine, decisions: int = 60, reward: float | None = None) -> float:
    """How far the weights move: arm 1 pays."""
    before = weights(engine)
    rng = np.random.default_rng(1)
    for _ in range(decisions):
        action = engine.decide("a", rng.random(2, dtype=np.float32)).action
        engine.reward("a", float(action[0] == 1) if reward is None else reward)
    return float((weights(engine) - before).norm())


@pytest.mark.parametrize("model", ["Normed", "Cached"])
def test_models_that_keep_state_are_trained(odd: Callable[..., Engine], model: str) -> None:
    """BatchNorm, which cannot do with a batch of one, and tensors that were made while the server decided."""
    engine = odd(model)
    assert play(engine) > 0.1
    assert engine.model_version == 60
    assert engine.control.lane(0)["errors"] == 0


def test_a_model_that_cannot_be_trained_on_one_observation_is_refused_by_name(odd: Callable[..., Engine]) -> None:
    """At the start, saying why."""
    with pytest.raises(ApplicationError, match=r"application odd: .*trainer.enabled: false.*two observations at least"):
        odd("Hopeless")


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_step_that_fails_leaves_weights_and_learner_as_they_were(odd: Callable[..., Engine], fault: str) -> None:
    """The published weights are those in use, and the next steps train them as before."""
    engine = odd("Cached")
    moved = play(engine)
    coupled = engine._coupled
    assert coupled is not None
    parameter = next(coupled._own.model.parameters())
    before = weights(engine)

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        engine._live.flat.flat.zero_()
        if fault == "raises":
            raise RuntimeError("planted")
        return gradient * torch.nan

    handle = parameter.register_hook(spoil)
    engine.decide("a", np.ones(2, np.float32))
    engine.reward("a", 1.0)
    handle.remove()
    assert torch.equal(weights(engine), before)
    assert play(engine) > 0.3 * moved


def test_absurd_rewards_are_bounded(odd: Callable[..., Engine]) -> None:
    """By the declared range as by the learned one: the learner's state stays finite, and the outlier is counted."""
    engine = odd("Cached", range=[-1.0, 1.0])
    play(engine, 20)
    play(engine, 1, reward=1e20)
    assert engine._coupled is not None
    assert float(engine._coupled._learner.rewards.variance) < 2  # type: ignore[attr-defined]
    assert engine.control.get("metrics.clipped_rewards") == 1
    assert play(engine) > 0.05


def test_learning_goes_on_after_a_reset(odd: Callable[..., Engine]) -> None:
    """Fresh weights are trained like the first ones."""
    engine = odd("Cached")
    play(engine)
    engine.reset()
    assert play(engine) > 0.1
