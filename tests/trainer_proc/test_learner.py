"""The default learner: what gains, what loses, and what a resumed learner needs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tandem.shared.actions.number import draw_number
from tandem.shared.application import ActionHead, GaussianHead
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.learning import Batch
from tandem.shared.weights.flat_model import FlatModel
from tandem.trainer_proc.learner import PolicyGradient, importance

HEADS = (ActionHead("spawn_chunk", 5), ActionHead("spawn_type", 2))
CONFIG = dataclasses.replace(ContinuousTrainingConfig(), learning_rate=0.02)


class Toy(torch.nn.Module):
    """Two layers, so that there are several parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = torch.nn.Linear(4, 8)
        self.out = torch.nn.Linear(8, 7)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of both heads."""
        logits = self.out(torch.relu(self.trunk(observations)))
        return logits[:, :5], logits[:, 5:]


def learner(flat=True, config=CONFIG):
    """A learner of a new toy with fixed initial weights."""
    torch.manual_seed(5)
    model = Toy()
    if flat:
        FlatModel(model)
    return PolicyGradient(model, HEADS, config)


def chunk_probabilities(trained):
    """The mean distribution over chunks on fixed observations."""
    observations = torch.rand(64, 4, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return torch.softmax(trained.model(observations)[0], dim=1).mean(dim=0)


def draw(trained, generator, reward, blocked=None, rows=32):
    """A batch of the policy's own actions; `reward(chunks)` gives the rewards, chunk `blocked` is a WAIT."""
    observations = torch.rand(rows, 4, generator=generator)
    with torch.no_grad():
        heads = [torch.softmax(logits, dim=1) for logits in trained.model(observations)]
    actions = torch.cat([torch.multinomial(head, 1, generator=generator) for head in heads], dim=1)
    probabilities = torch.ones(rows)
    for head, distribution in enumerate(heads):
        probabilities = probabilities * distribution.gather(1, actions[:, head : head + 1]).squeeze(1)
    sent = torch.ones(rows, dtype=torch.bool) if blocked is None else actions[:, 0] != blocked
    return Batch(observations, actions, reward(actions[:, 0]), probabilities, sent)


def train(trained, steps, reward, blocked=None):
    """Train on what the policy does."""
    generator = torch.Generator().manual_seed(11)
    for _ in range(steps):
        trained.step(draw(trained, generator, reward, blocked))


def test_what_earns_more_becomes_more_probable():
    """The best chunk wins, also where every reward is negative."""
    trained = learner()
    train(trained, 150, lambda chunks: torch.where(chunks == 3, -0.2, -0.8))
    assert chunk_probabilities(trained)[3] > 0.8


def test_a_chunk_that_is_always_blocked_loses_probability():
    """However much the gate expected of it: being blocked discourages, even where the discounted reward is the best."""
    trained = learner()
    before = chunk_probabilities(trained)[1]
    train(trained, 150, lambda chunks: torch.where(chunks == 1, 0.3, 0.1), blocked=1)
    assert chunk_probabilities(trained)[1] < 0.3 * before


def test_entropy_does_not_collapse():
    """Long after the best action is found the policy still tries others; without floor and pull it would not."""
    kept, lost = learner(), learner(config=dataclasses.replace(CONFIG, entropy_floor=0.0, entropy_weight=0.0))
    results = []
    for trained in (kept, lost):
        train(trained, 800, lambda chunks: torch.where(chunks == 3, 1.0, -1.0))
        results.append(
            trained.step(draw(trained, torch.Generator().manual_seed(1), lambda chunks: chunks * 0.0)).entropy
        )
    assert results[0] > 0.15
    assert results[0] > results[1]


def test_old_actions_weigh_at_most_the_clip():
    """An importance weight above the clip is cut and reported."""
    trained = learner()
    batch = draw(trained, torch.Generator().manual_seed(2), lambda chunks: chunks * 0.1)
    assert trained.step(batch).clipped_share == 0.0
    rare = dataclasses.replace(batch, probabilities=batch.probabilities / 100)
    assert trained.step(rare).clipped_share == 1.0


@pytest.mark.parametrize("flat", [True, False])
def test_the_joined_parameters_are_the_models(flat):
    """One flat leaf stands for all parameters, and its steps are those of the parameters themselves."""
    trained = learner(flat)
    assert [tensor.numel() for tensor in trained.parameters] == [4 * 8 + 8 + 8 * 7 + 7]
    before = trained.model.trunk.weight.detach().clone()
    train(trained, 1, lambda chunks: chunks * 1.0)
    moved = (trained.model.trunk.weight.detach() - before).abs().max()
    assert 0 < moved <= 1.01 * CONFIG.learning_rate
    other = learner(not flat)
    train(other, 1, lambda chunks: chunks * 1.0)
    assert torch.equal(other.model.trunk.weight, trained.model.trunk.weight)


def test_a_resumed_learner_makes_the_same_steps():
    """`state` holds everything besides the model: a learner that takes it over goes on bit for bit."""
    first = learner()
    train(first, 5, lambda chunks: chunks * 0.2)
    second = learner()
    with torch.no_grad():
        for mine, theirs in zip(second.model.parameters(), first.model.parameters(), strict=True):
            mine.copy_(theirs)
    second.load_state({name: value.clone() for name, value in first.state().items()})
    for trained in (first, second):
        train(trained, 5, lambda chunks: chunks * 0.2)
    assert torch.equal(first.model.out.weight, second.model.out.weight)
    assert all(torch.equal(value, second.state()[name]) for name, value in first.state().items())


def test_another_models_state_is_refused():
    """A state whose shapes do not fit raises, naming the tensor."""
    state = learner().state()
    first = learner()
    train(first, 1, lambda chunks: chunks * 0.2)
    state = first.state()
    state["adam.0.exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"adam\.0\.exp_avg has shape \[3\]"):
        learner().load_state(state)
    with pytest.raises(KeyError):
        learner().load_state({})


def test_a_policy_that_masks_with_minus_infinity_learns():
    """Weights stay finite, the best allowed choice wins, and the forbidden one stays forbidden."""

    class Masked(Toy):
        def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            chunks, types = super().forward(observations)
            return chunks.masked_fill(torch.arange(5) == 2, float("-inf")), types

    torch.manual_seed(5)
    flat = FlatModel(Masked())
    trained = PolicyGradient(flat.model, HEADS, CONFIG)
    train(trained, 150, lambda chunks: torch.where(chunks == 3, 1.0, -1.0))
    assert torch.isfinite(flat.flat.view(torch.float32)).all()
    assert chunk_probabilities(trained)[3] > 0.8
    assert chunk_probabilities(trained)[2] == 0


@pytest.mark.parametrize("heads", [20, 80])
def test_an_action_of_many_heads_is_learned(heads):
    """However small the joint probability: fresh experiences weigh 1, and the right choices become more probable."""

    class Many(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 4 * heads)

        def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.layer(observations).view(-1, heads, 4).unbind(1)

    torch.manual_seed(0)
    model = FlatModel(Many()).model
    trained = PolicyGradient(model, tuple(ActionHead(f"h{n}", 4) for n in range(heads)), CONFIG)
    for _ in range(60):
        observations = torch.rand(32, 2)
        with torch.no_grad():
            logs = torch.log_softmax(torch.stack(model(observations), 1), 2)
        actions = torch.distributions.Categorical(logits=logs).sample()
        together = logs.gather(2, actions.unsqueeze(2)).squeeze(2).sum(1)
        assert importance(together, together.double().exp().float()) == pytest.approx(torch.ones(32), rel=1e-4)
        rewards = (actions == 1).float().mean(1)
        sent = torch.ones(32, dtype=torch.bool)
        trained.step(Batch(observations, actions, rewards, together.double().exp().float(), sent))
    with torch.no_grad():
        right = torch.softmax(torch.stack(model(torch.rand(64, 2)), 1), 2)[:, :, 1].mean()
    assert right > 0.35


def test_what_is_masked_today_weighs_nothing():
    """Even if nobody knows any more how probable it was."""
    masked = torch.tensor([-1e9, -1e9, -150.0])
    assert importance(masked, torch.tensor([0.1, 0.0, 0.0])).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("value", [1e3, 1e6, 1e20, -1e20])
@pytest.mark.parametrize("at", [0, 20])
def test_one_absurd_reward_does_not_stop_the_learning(value, at):
    """In the first batch or later, and drawn again now and then: the best choice wins all the same."""
    trained = learner()
    generator = torch.Generator().manual_seed(11)
    for step in range(150):
        batch = draw(trained, generator, lambda chunks: torch.where(chunks == 3, 1.0, -1.0))
        if step >= at and (step - at) % 15 == 0:
            batch.rewards[0] = value
        trained.step(batch)
    assert chunk_probabilities(trained)[3] > 0.8
    assert trained.variance < 100
    assert all(bool(torch.isfinite(tensor).all()) for tensor in trained.state().values())


def test_rewards_of_any_scale_are_followed():
    """When all rewards become a million times larger the deviation follows, and learning goes on."""
    trained = learner()
    train(trained, 3, lambda chunks: torch.where(chunks == 3, 1.0, -1.0))
    train(trained, 150, lambda chunks: torch.where(chunks == 1, 1e6, 0.0))
    assert trained.variance > 1e10
    assert chunk_probabilities(trained)[1] > 0.8


def test_parameters_that_want_gradients_later_are_trained():
    """A model may freeze and free its layers while it is trained."""
    model = FlatModel(Toy()).model
    model.trunk.requires_grad_(False)
    trained = PolicyGradient(model, HEADS, CONFIG)
    train(trained, 1, lambda chunks: chunks * 1.0)
    before = trained.model.trunk.weight.detach().clone()
    train(trained, 3, lambda chunks: chunks * 1.0)
    assert torch.equal(trained.model.trunk.weight, before)
    trained.model.trunk.requires_grad_(True)
    train(trained, 3, lambda chunks: chunks * 1.0)
    assert not torch.equal(trained.model.trunk.weight, before)


def test_a_learner_follows_its_parameters_to_other_memory():
    """Bound to another buffer, they are trained there."""
    torch.manual_seed(5)
    flat = FlatModel(Toy())
    trained = PolicyGradient(flat.model, HEADS, CONFIG)
    train(trained, 2, lambda chunks: chunks * 1.0)
    left = flat.flat
    flat.bind(left.clone())
    before = flat.flat.clone()
    train(trained, 2, lambda chunks: chunks * 1.0)
    assert torch.equal(left, before)
    assert not torch.equal(flat.flat, before)


def test_what_was_not_allowed_has_no_part_in_a_step() -> None:
    """Ratio and entropy are those given what was allowed: a likely choice that was forbidden changes neither."""
    trained = learner()
    with torch.no_grad():
        trained.model.out.weight.zero_()
        trained.model.out.bias.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0]))
    rows = 32
    actions = torch.stack([1 + torch.arange(rows) % 2, torch.zeros(rows, dtype=torch.long)], dim=1)
    allowed = torch.tensor([[False, True, True, False, False, True, True]]).expand(rows, -1)
    observations, sent = torch.rand(rows, 4), torch.ones(rows, dtype=torch.bool)
    # Drawn among two and two: a quarter. Without the masks the choices would be 8,000 times less likely.
    rewards = (actions[:, 0] == 1).float()
    batch = Batch(observations, actions, rewards, torch.full((rows,), 0.25), sent, allowed)
    result = trained.step(batch)
    assert result.entropy == pytest.approx(2 * 0.6931, abs=1e-3)
    for _ in range(60):
        trained.step(batch)
    with torch.no_grad():
        logits = trained.model(observations)[0].mean(dim=0)
    assert float(logits[1] - logits[2]) > 1.0


def test_a_number_moves_to_where_most_is_earned() -> None:
    """A GaussianHead's mean follows the rewards of what was drawn, by its density."""

    class Number(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)
            torch.nn.init.zeros_(self.layer.weight)
            torch.nn.init.zeros_(self.layer.bias)

        def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.layer(observations),)

    head, model, rng = GaussianHead("price", 0.0, 10.0), Number(), np.random.default_rng(3)
    trained = PolicyGradient(model, (head,), CONFIG)
    for _ in range(300):
        observations = torch.rand(32, 4)
        with torch.no_grad():
            parameters = model(observations)[0].tolist()
        drawn = torch.tensor([draw_number(head, (mean, log), rng.random) for mean, log in parameters])
        values, sent = drawn[:, :1], torch.ones(32, dtype=torch.bool)
        rewards = 1.0 - 0.1 * (values[:, 0] - 8.0).square()
        actions = torch.zeros(32, 1, dtype=torch.int64)
        trained.step(Batch(observations, actions, rewards, drawn[:, 1], sent, values=values))
    with torch.no_grad():
        mean = 5.0 + 5.0 * float(model(torch.full((1, 4), 0.5))[0][0, 0])
    assert mean == pytest.approx(8.0, abs=0.8)
