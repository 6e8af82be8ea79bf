"""Reward regression: what it learns, live and alone, and what it does with odd values."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tandem.inference_proc.engine import Engine
from tandem.shared.application import ActionHead
from tandem.shared.configuration.config import ContinuousTrainingConfig, parse
from tandem.shared.errors import ApplicationError
from tandem.shared.instance import create_instance
from tandem.shared.learning import Batch, build_learner
from tandem.shared.memory.control import Control
from tandem.shared.memory.segments import remove_instance
from tandem.shared.models.logits_model import LogitsModel
from tandem.shared.models.reward_model import RewardModel
from tandem.trainer_proc.learner import PolicyGradient
from tandem.trainer_proc.reward_regression import Moments, RewardRegression

HEADS = (ActionHead("choice", 3),)
CONFIG = ContinuousTrainingConfig()
APPLICATION = """
from tandem import ActionHead, Application

def create(settings, folder):
    return Application("thirds", ("hour", "darkness"), (ActionHead("light", 3),))
"""

OWN_MODEL = """
from tandem import ActionHead, Application
from torch import nn

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 3))

    def forward(self, observations):
        return (self.layers(observations),)

def create(settings, folder):
    return Application("thirds", ("hour", "darkness"), (ActionHead("light", 3),), Own)
"""


def batch_of(rng: np.random.Generator, size: int, reward: Callable[[Any, Any], Any], **changes: Any) -> Batch:
    """`size` experiences of two features and uniform choices, earning `reward(observations, choices)`."""
    rows, choices = rng.random((size, 2)), rng.integers(0, 3, size)
    fields = {
        "observations": torch.tensor(rows, dtype=torch.float32),
        "actions": torch.tensor(choices)[:, None],
        "rewards": torch.tensor(reward(rows, choices), dtype=torch.float32),
        "probabilities": torch.full((size,), 1 / 3),
        "sent": torch.ones(size, dtype=torch.bool),
    }
    return Batch(**{**fields, **changes})


def right(rows: Any, choices: Any) -> Any:
    """1 for the third in which the second feature lies."""
    return (choices == (rows[:, 1] * 3).astype(int)).astype(float)


def share_right(model: RewardModel, rng: np.random.Generator) -> float:
    """How much probability the model gives to the right choices."""
    rows = rng.random((500, 2)).astype(np.float32)
    with torch.no_grad():
        probabilities = model(torch.from_numpy(rows))[0].exp().numpy()
    return float(probabilities[np.arange(500), (rows[:, 1] * 3).astype(int)].mean())


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1000.0, 5000.0), (1e-4, 0.0)])
def test_any_range_of_rewards_is_learned(scale: float, offset: float) -> None:
    """Rewards of 0 and 1, of 5,000 and 6,000, of 0 and 0.0001: the right choice becomes the likely one."""
    torch.manual_seed(1)
    rng, model = np.random.default_rng(1), RewardModel(2, 3)
    learner = RewardRegression(model, HEADS, CONFIG)
    learner.experiences = 2000
    for _ in range(400):
        learner.step(batch_of(rng, 64, lambda *seen: offset + scale * right(*seen)))
    assert share_right(model, rng) > 0.85
    assert learner.is_finite()


def test_a_choice_that_is_always_blocked_loses_probability() -> None:
    """However much the gate expected of it."""
    torch.manual_seed(1)
    rng, model = np.random.default_rng(1), RewardModel(2, 3)
    learner = RewardRegression(model, HEADS, CONFIG)
    learner.experiences = 2000
    for _ in range(200):
        batch = batch_of(rng, 64, lambda rows, choices: np.where(choices == 0, 0.6, rng.random(len(rows))))
        batch = Batch(batch.observations, batch.actions, batch.rewards, batch.probabilities, batch.actions[:, 0] != 0)
        learner.step(batch)
    with torch.no_grad():
        assert float(model(torch.rand(200, 2))[0].exp()[:, 0].mean()) < 0.1


def test_its_state_comes_back() -> None:
    """A learner with the state of another takes the same step."""
    torch.manual_seed(1)
    rng, first, second = np.random.default_rng(1), RewardModel(2, 3), RewardModel(2, 3)
    one = RewardRegression(first, HEADS, CONFIG)
    for _ in range(5):
        one.step(batch_of(rng, 64, right))
    second.load_state_dict(first.state_dict())
    other = RewardRegression(second, HEADS, CONFIG)
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    batch = batch_of(rng, 64, right)
    one.step(batch)
    other.step(batch)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    with pytest.raises((KeyError, ValueError)):
        other.load_state({"rewards": torch.zeros(3)})


def test_the_learner_follows_the_heads() -> None:
    """`auto` takes reward regression for one head, policy gradient for several."""
    assert type(build_learner(RewardModel(2, 3), HEADS, CONFIG)) is RewardRegression
    two = (*HEADS, ActionHead("other", 2))
    assert type(build_learner(LogitsModel(2, (3, 2)), two, CONFIG)) is PolicyGradient
    named = ContinuousTrainingConfig(learner="policy_gradient")
    assert type(build_learner(LogitsModel(2, (3,)), HEADS, named)) is PolicyGradient
    with pytest.raises(ApplicationError, match="choose policy_gradient"):
        RewardRegression(torch.nn.Linear(2, 3), HEADS, CONFIG)


def test_moments_are_those_of_all_rows() -> None:
    """Mean and variance of several batches together."""
    rows, moments = torch.rand(300, 2, dtype=torch.float64) * 1e6, Moments(2, torch.device("cpu"))
    for part in (rows[:10], rows[10:200], rows[200:]):
        moments.add(part)
    assert torch.allclose(moments.mean, rows.mean(dim=0))
    assert torch.allclose(moments.variance, rows.var(dim=0, unbiased=False))
    moments.add(torch.full((1, 2), 3.0, dtype=torch.float64))
    assert bool(torch.isfinite(moments.deviation).all())


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("name", "source"), [("thirds", APPLICATION), ("own_thirds", OWN_MODEL)])
def test_an_application_with_nothing_tuned_learns_while_it_decides(
    tmp_path: Path, instance_name: str, trainer_process: Callable[[str], Any], name: str, source: str
) -> None:
    """The defaults, a real trainer process and 200 decisions a second: the reward rises from a third to most of it."""
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    plain = {"application": name, "data_dir": str(tmp_path / "data"), "logging": {"level": "error"}}
    create_instance(instance_name, parse(plain, "the test's configuration", str(tmp_path)))
    control = Control.attach(instance_name)
    engine = Engine.attach(instance_name)
    try:
        trainer_process(instance_name)
        deadline = time.monotonic() + 90
        while not control.get("trainer.ready"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        rng, rewards = np.random.default_rng(1), []
        model = engine.get_model_for_inference()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        while time.monotonic() < deadline:
            observation = rng.random(2)
            decision = engine.decide("room", observation)
            rewards.append(float(decision.action[0] == int(observation[1] * 3)))
            engine.reward("room", rewards[-1])
            time.sleep(0.005)
            if len(rewards) >= 1000 and np.mean(rewards[-300:]) > 0.8:
                break
        assert np.mean(rewards[-300:]) > 0.8
        after = [parameter.detach() for parameter in engine.get_model_for_inference().parameters()]
        assert all(float((new - old).abs().max()) > 0.01 for new, old in zip(after, before, strict=True))
        assert control.get("metrics.refused") == 0
    finally:
        engine.close()
        control.close()
        remove_instance(instance_name)
