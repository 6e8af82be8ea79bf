"""The linear path: the sums, what they solve to, and what is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tandem.trainer_proc.regression import linear
from tandem.trainer_proc.regression.linear import LinearPath, fits
from torch import Tensor

CPU = torch.device("cpu")
Rows = tuple[Tensor, Tensor, Tensor]


def experiences(seed: int, count: int, features: int = 3, choices: int = 2) -> Rows:
    """Features of very different scales, and rewards that are linear in them, with some noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, features)) * [1e-3, 1.0, 1e4][:features] + [5e-3, 0.0, -1e5][:features]
    taken = rng.integers(choices, size=count)
    slopes = np.array([[800.0, 0.5, 1e-4], [-500.0, 0.0, 2e-4]])[:choices, :features]
    rewards = 3.0 + (x * slopes[taken]).sum(axis=1) + 0.1 * rng.standard_normal(count)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(taken), torch.tensor(rewards)


def test_it_is_the_ridge_regression_of_all_experiences(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever pieces they come, as numpy solves it in one."""
    monkeypatch.setattr(linear, "MEMORIES", (10**9, 10**9))
    path = LinearPath(3, 2, CPU)
    x, taken, rewards = experiences(1, 500)
    for begin, end in ((0, 3), (3, 4), (4, 90), (90, 500)):
        path.add(x[begin:end], taken[begin:end], rewards[begin:end])
    path.solve(2.0, 4.0)
    inputs = path._inputs(x).numpy()
    for choice in range(2):
        mine = inputs[taken == choice]
        target = (rewards[taken == choice].numpy() - 2.0) / 4.0
        expected = np.linalg.solve(mine.T @ mine + np.eye(4), mine.T @ target)
        assert np.allclose(path.weights[0, choice].numpy(), expected, rtol=1e-6)
        assert np.allclose(path.weights[1, choice].numpy(), expected, rtol=1e-6)


def test_the_scale_is_found_although_the_first_experiences_do_not_tell_it() -> None:
    """The first eight are all the same, later ones are not: what came first is added up anew."""
    path = LinearPath(3, 2, CPU)
    x, taken, rewards = experiences(2, 4000)
    x[:8], taken[:8], rewards[:8] = x[0], taken[0], rewards[0]
    for begin in range(0, 4000, 8):
        path.add(x[begin : begin + 8], taken[begin : begin + 8], rewards[begin : begin + 8])
    mean, spread = float(rewards.mean()), float(rewards.std())
    path.solve(mean, spread)
    told = path.foretell(x, taken)[:, 0] * spread + mean
    assert float((told - rewards).square().mean()) < 0.02
    assert path._first is None, "they are not kept for ever"


def test_a_model_with_another_scale_computes_the_same() -> None:
    """`on_scale`: slopes and constant in the scale of the model, also where a feature never changes."""
    path = LinearPath(3, 2, CPU)
    x, taken, rewards = experiences(3, 1000)
    path.add(x, taken, rewards)
    path.solve(float(rewards.mean()), float(rewards.std()))
    centre, deviation = x.mean(dim=0) + 0.3 * x.std(dim=0), 1.7 * x.std(dim=0)
    slopes, constant = path.on_scale(torch.tensor([0.25, 0.75], dtype=torch.float64), centre, 1.0 / deviation)
    model = ((x - centre) / deviation).double() @ slopes.T + constant
    told = path.foretell(x, taken) @ torch.tensor([0.25, 0.75], dtype=torch.float64)
    assert torch.allclose(model.gather(1, taken[:, None])[:, 0], told, atol=1e-3)
    slopes, constant = path.on_scale(torch.ones(2, dtype=torch.float64), centre, torch.zeros(3))
    assert not slopes.any()
    assert bool(constant.isfinite().all())


def test_a_choice_that_is_not_taken_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It forgets as it is taken: with a short memory the newest experiences decide."""
    monkeypatch.setattr(linear, "MEMORIES", (20_000, 50))
    path = LinearPath(3, 2, CPU)
    x, taken, rewards = experiences(4, 1000)
    path.add(x, taken, rewards)
    path.solve(0.0, 1.0)
    path.resume()
    before = path.weights.clone()
    x, _, _ = experiences(5, 1000)
    path.add(x, torch.zeros(1000, dtype=torch.int64), torch.full((1000,), 7.0, dtype=torch.float64))
    path.solve(0.0, 1.0)
    assert torch.equal(path.weights[:, 1], before[:, 1])
    told = path.foretell(x, torch.zeros(1000, dtype=torch.int64)).mean(dim=0)
    assert abs(float(told[1]) - 7.0) < 0.1
    assert abs(float(told[0]) - 7.0) > 1.0


def test_its_state_comes_back() -> None:
    """Another path with its tensors goes on as it would."""
    one, other = LinearPath(3, 2, CPU), LinearPath(3, 2, CPU)
    first, second = experiences(6, 700), experiences(7, 900)
    one.add(*first)
    one.solve(0.0, 1.0)
    for name, tensor in other.tensors().items():
        tensor.copy_(one.tensors()[name])
    other.resume()
    one.resume()
    for path in (one, other):
        path.add(*second)
        path.solve(0.0, 1.0)
    assert torch.equal(one.weights, other.weights)
    assert int(other.count) == 1600


def test_what_is_too_large_is_left_to_the_network() -> None:
    """A thousand features and ten choices would take longer than a step."""
    assert fits(100, 50)
    assert fits(28, 400)
    assert not fits(1000, 10)
    assert not fits(784, 10)


def test_absurd_numbers_stay_numbers() -> None:
    """Features and rewards of the largest magnitude: finite weights."""
    path = LinearPath(2, 2, CPU)
    x = torch.tensor([[1e38, -1e38], [1e-38, 0.0], [3e38, 3e38], [0.0, 1.0]])
    path.add(x, torch.tensor([0, 1, 0, 1]), torch.tensor([1.0, -8.0, 8.0, 0.0], dtype=torch.float64))
    path.solve(0.0, 1.0)
    assert bool(path.weights.isfinite().all())
    assert all(bool(tensor.isfinite().all()) for tensor in path.tensors().values())
