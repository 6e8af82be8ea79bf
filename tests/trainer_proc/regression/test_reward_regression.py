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
from tandem.trainer_proc.regression.reward_regression import RewardRegression

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
        one.observe(batch_of(rng, 64, right))
        one.step(batch_of(rng, 64, right))
    second.load_state_dict(first.state_dict())
    other = RewardRegression(second, HEADS, CONFIG)
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    batch = batch_of(rng, 64, right)
    one.linear.resume()
    for learner in (one, other):
        learner.observe(batch)
        learner.step(batch)
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


def linear_world(rng: np.random.Generator, size: int, slopes: np.ndarray[Any, Any]) -> Batch:
    """Rewards of 0 and 1 whose chance is linear in two features, a small part of what is noise."""
    rows, choices = rng.random((size, 2)), rng.integers(0, 3, size)
    chances = BASE + ((rows - 0.5) * slopes[choices]).sum(axis=1)
    return batch_of(rng, size, lambda *_: rng.random(size) < chances, observations=torch.tensor(rows).float(),
                    actions=torch.tensor(choices)[:, None])  # fmt: skip


BASE, SLOPES = 0.4, np.array([[0.15, 0.0], [-0.15, 0.1], [0.0, -0.15]])


def error_of(model: RewardModel, learner: RewardRegression, slopes: np.ndarray[Any, Any]) -> float:
    """Of the expected rewards, as a share of the deviation that the true ones have."""
    rows = np.random.default_rng(9).random((2000, 2))
    truth = BASE + (rows - 0.5) @ slopes.T
    mean, spread = float(learner.rewards.mean), float(learner.rewards.deviation)
    with torch.no_grad():
        told = model.values(torch.tensor(rows).float()).numpy() * spread + mean
    return float(np.sqrt(((told - truth) ** 2).mean()) / truth.std())


def taught(seed: int, worlds: list[np.ndarray[Any, Any]], each: int) -> tuple[RewardModel, RewardRegression]:
    """A learner after `each` experiences of each world, 100 at a tick, with replay of all of them."""
    torch.manual_seed(seed)
    rng, model, seen = np.random.default_rng(seed), RewardModel(2, 3), []
    learner = RewardRegression(model, HEADS, CONFIG)
    for world in worlds:
        for _ in range(each // 100):
            seen.append(linear_world(rng, 100, world))
            learner.observe(seen[-1])
            learner.experiences = 100 * len(seen)
            for _ in range(10):
                learner.step(seen[int(rng.integers(len(seen)))])
    return model, learner


def test_what_is_mostly_noise_is_learned_by_the_linear_path() -> None:
    """A network alone learns the noise; half of the way is gone without the linear path."""
    model, learner = taught(1, [SLOPES], 4000)
    with torch.no_grad():
        told = error_of(model, learner, SLOPES)
        model.linear.zero_()
        model.constant.zero_()
        model.share.fill_(1.0)
    assert told < 0.45
    assert error_of(model, learner, SLOPES) > 1.3 * told


def test_a_world_that_changes_is_followed() -> None:
    """After the change its long memory is wrong, which is noticed."""
    before, after = 4 * SLOPES, -4 * SLOPES
    model, learner = taught(1, [before, after], 3000)
    assert learner.stacking.has_changed
    assert error_of(model, learner, after) < 0.7
    assert error_of(model, learner, before) > 1.5


def test_what_is_new_is_judged_before_it_is_learned_from() -> None:
    """What counts is what was foretold; the network is asked without learning anything from it either."""
    rng, model = np.random.default_rng(1), RewardModel(2, 3)
    learner = RewardRegression(model, HEADS, CONFIG)
    first, second = (batch_of(rng, 50, lambda rows, _: rng.standard_normal(len(rows))) for _ in range(2))
    learner.observe(first)
    assert not learner.stacking.products.any(), "nothing was foretold of the first ones"
    for _ in range(20):
        learner.step(first)
    choices = second.actions[:, 0]
    with torch.no_grad():
        network = model.network(second.observations).gather(1, second.actions)[:, 0].double()
    told = torch.cat([learner.linear.foretell(second.observations, choices), network[:, None]], dim=1)
    rewards = (second.rewards.double() - learner.rewards.mean) / learner.rewards.deviation
    learner.observe(second)
    assert torch.allclose(learner.stacking.products[:, 3], told.T @ rewards, atol=1e-4)
    assert int(learner.linear.count) == 100


def test_where_a_linear_path_is_too_large_the_network_learns_alone() -> None:
    """A thousand features: nothing is observed, everything else goes on."""
    rng, model = np.random.default_rng(1), RewardModel(1000, 3)
    learner = RewardRegression(model, HEADS, CONFIG)
    batch = batch_of(rng, 64, right, observations=torch.rand(64, 1000))
    learner.observe(batch)
    learner.step(batch)
    assert (learner.linear, float(model.share)) == (None, 1.0)
    assert not model.linear.any()


def test_the_model_computes_alike_with_numpy_and_torch() -> None:
    """With a linear path, a share of the network, and one observation or many."""
    model, _ = taught(2, [SLOPES], 1000)
    assert bool(model.linear.any())
    assert float(model.share) != 1.0
    rows = torch.rand(50, 2)
    with torch.no_grad():
        together = model(rows)[0].numpy()
    for row, expected in zip(rows.numpy(), together, strict=True):
        assert np.allclose(model.infer(row)[0], expected, atol=2e-4)


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
