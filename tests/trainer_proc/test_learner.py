"""The default learner: what gains, what loses, and what a resumed learner needs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tandem.shared.application import ActionHead
from tandem.shared.config import ContinuousTrainingConfig
from tandem.shared.learning import Batch
from tandem.shared.weights import FlatModel
from tandem.trainer_proc.learner import PolicyGradient

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
