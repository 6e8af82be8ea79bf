"""The policy draws from its masked distribution and says exactly how likely the draw was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tandem.inference_proc.policy import Policy
from tandem.shared.application import MASKED


class Fixed(torch.nn.Module):
    """Gives the same logits for every observation."""

    def __init__(self, *heads: list[float]) -> None:
        super().__init__()
        self.heads = [torch.tensor(head) for head in heads]

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(head.expand(len(observations), -1) for head in self.heads)


def test_the_probability_is_that_of_the_draw() -> None:
    """The stored probability is the product of the choices' softmax probabilities, and draws occur that often."""
    policy = Policy(Fixed([0.0, 1.0, 2.0], [0.0, 0.5]), seed=1)
    first = torch.softmax(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 0)
    second = torch.softmax(torch.tensor([0.0, 0.5], dtype=torch.float64), 0)
    counts = np.zeros((3, 2))
    for draw in policy.act_many(np.zeros((4000, 4), np.float32)):
        assert draw.probability == pytest.approx(float(first[draw.action[0]] * second[draw.action[1]]))
        assert draw.head_probabilities[0] == pytest.approx(float(first[draw.action[0]]))
        counts[draw.action] += 1
    assert np.allclose(counts / 4000, torch.outer(first, second).numpy(), atol=0.03)


def test_a_masked_choice_is_never_drawn() -> None:
    """A masked choice has probability 0, with an exploration floor too."""
    policy = Policy(Fixed([MASKED, 0.0, MASKED, 3.0]), floor=0.5, seed=2)
    distribution = policy.distribution(np.array([MASKED, 0.0, MASKED, 3.0], np.float32))
    assert distribution[0] == distribution[2] == 0.0
    assert distribution.sum() == pytest.approx(1.0)
    assert {draw.action[0] for draw in policy.act_many(np.zeros((500, 1), np.float32))} == {1, 3}


def test_floor_and_temperature_shape_the_distribution() -> None:
    """The floor is shared evenly by the allowed choices; a higher temperature flattens."""
    logits = np.array([0.0, 4.0, MASKED], np.float32)
    floored = Policy(Fixed([0.0]), floor=0.2).distribution(logits)
    plain = Policy(Fixed([0.0])).distribution(logits)
    assert floored[0] == pytest.approx(0.8 * plain[0] + 0.1)
    assert Policy(Fixed([0.0]), temperature=4.0).distribution(logits)[0] > plain[0]


def test_a_seed_repeats_the_draws() -> None:
    """Two policies with the same seed draw the same actions."""
    features = np.zeros((50, 1), np.float32)
    draws = [[draw.action for draw in Policy(Fixed([0.0] * 9), seed=7).act_many(features)] for _ in range(2)]
    assert draws[0] == draws[1]
