"""Numbers are drawn by the density that is told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tandem import GaussianHead
from tandem.shared.actions.number import draw_number
from tandem.shared.models.gaussian import log_density

HEAD = GaussianHead("price", 10.0, 30.0)


@pytest.mark.parametrize(("mean", "deviation", "floor"), [(0.0, 0.5, 0.0), (0.95, 0.8, 0.0), (-4.0, 9.0, 0.2)])
def test_the_density_is_that_of_the_draws(mean: float, deviation: float, floor: float) -> None:
    """Over the range it adds up to 1, and each part of the range is hit as often as it says."""
    rng = np.random.default_rng(1)
    draws = [draw_number(HEAD, (mean, math.log(deviation)), rng.random, floor=floor) for _ in range(20_000)]
    numbers, densities = np.array(draws).T
    assert numbers.min() >= 10.0
    assert numbers.max() <= 30.0
    # The mean of 1 / density over a part of the range is its length.
    for low, high in ((10.0, 15.0), (15.0, 25.0), (25.0, 30.0)):
        inside = (numbers >= low) & (numbers < high)
        if inside.sum() > 500:
            assert (inside / densities).mean() == pytest.approx(high - low, rel=0.15)


def test_the_learner_computes_the_same_density() -> None:
    """`log_density` in torch and what was recorded."""
    rng = np.random.default_rng(2)
    for mean, deviation in ((0.0, 0.5), (1.5, 0.06), (-0.9, 3.0)):
        number, density = draw_number(HEAD, (mean, math.log(deviation)), rng.random)
        parameters = torch.tensor([[mean, math.log(deviation)]])
        found, _ = log_density(parameters, torch.tensor([number]), HEAD)
        assert float(found[0]) == pytest.approx(math.log(density), abs=1e-3)


def test_a_mean_out_of_range_finds_back() -> None:
    """The gradient of the density is not cut off with the mean."""
    parameters = torch.tensor([[3.0, math.log(0.5)]], requires_grad=True)
    log_density(parameters, torch.tensor([12.0]), HEAD)[0].sum().backward()
    assert parameters.grad is not None
    assert float(parameters.grad[0, 0]) < 0


def test_what_is_no_number_is_refused() -> None:
    """By the policy's error."""
    with pytest.raises(FloatingPointError, match="not a number"):
        draw_number(HEAD, (math.nan, 0.0), np.random.default_rng(1).random)
