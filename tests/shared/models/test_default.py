"""The models of an application that brings none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from tandem.shared.application import MASKED, ActionHead, Application, check_forward, check_infer
from tandem.shared.errors import ApplicationError
from tandem.shared.instance import with_model_for
from tandem.shared.models.default import DefaultModel, EstimatingModel
from tandem.shared.models.estimates import inverse_gap_weights
from tandem.shared.models.logits_model import LogitsModel
from tandem.shared.models.reward_model import RewardModel
from torch import nn


@pytest.mark.parametrize("sizes", [(3,), (2, 5)])
def test_an_application_without_a_model_gets_one_that_fits(sizes: tuple[int, ...]) -> None:
    """`forward` returns what the heads promise, and `infer` the same, with whatever weights and buffers."""
    heads = tuple(ActionHead(f"h{index}", size) for index, size in enumerate(sizes))
    application = Application("plain", ("a", "b"), heads)
    model = application.build_model()
    check_forward(model, application)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(torch.rand_like(tensor))
    rows = np.random.default_rng(1).normal(0.0, 5.0, (50, 2)).astype(np.float32)
    assert check_infer(model, rows) < 1e-4


def test_a_model_of_the_users_own_stays() -> None:
    """Only who brings no model gets one."""
    build = DefaultModel(7, (2,))
    application = Application("own", ("a",), (ActionHead("h", 3),), lambda: build())
    assert application.build_model().hidden.in_features == 7  # type: ignore[union-attr]


def test_choices_are_drawn_by_inverse_gap_weighting() -> None:
    """1 / (K + gamma gap) for all but the best choice, which gets the rest; without gamma all are alike."""
    values = torch.tensor([[0.5, 1.0, 0.0]])
    weights = inverse_gap_weights(values, torch.tensor([6.0]))[0].tolist()
    assert weights == pytest.approx([1 / 6, 1 - 1 / 6 - 1 / 9, 1 / 9])
    assert inverse_gap_weights(values, torch.tensor([0.0]))[0].tolist() == pytest.approx([1 / 3] * 3)


def test_features_of_any_scale_are_taken() -> None:
    """Scaled by centre and inverse, and cut off: nothing becomes infinite."""
    model = RewardModel(2, 3)
    with torch.no_grad():
        model.direct.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
    model.gamma.fill_(10.0)
    for inverse in (1e-3, 0.0):
        model.centre.copy_(torch.tensor([1e6, -3e38]))
        model.inverse.copy_(torch.tensor([inverse, 1e30]))
        rows = torch.tensor([[1e6, 1e-20], [3e38, -3e38], [-3e38, 3e38]])
        logits = model(rows)[0]
        assert bool(torch.isfinite(logits).all())
        assert logits.exp().sum(dim=1).tolist() == pytest.approx([1.0, 1.0, 1.0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert check_infer(model, rows.numpy()) < 1e-4


class Own(nn.Module):
    """A model of the user's own, which masks the last choice where the first feature is above 0."""

    def __init__(self, choices: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(2, choices)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor]:
        logits = self.layer(observations)
        last = torch.where(observations[:, 0] > 0, torch.tensor(MASKED), logits[:, -1])
        return (torch.cat([logits[:, :-1], last[:, None]], dim=1),)


class Fast(Own):
    """The same with an `infer`."""

    def infer(self, features: np.ndarray) -> tuple[np.ndarray]:
        with torch.no_grad():
            return tuple(head[0].numpy() for head in self(torch.from_numpy(features)[None]))


@pytest.mark.parametrize("build", [Own, Fast])
def test_a_model_of_the_users_own_estimates_rewards(build: type[nn.Module]) -> None:
    """Its numbers are taken for expected rewards: drawn by inverse gap weighting, what it masks never."""
    own = Application("own", ("a", "b"), (ActionHead("h", 3),), build)
    application = with_model_for(own, "reward_regression")
    model = application.build_model()
    check_forward(model, application)
    model.gamma.fill_(20.0)  # type: ignore[union-attr,operator]
    rows = np.array([[1.0, 2.0], [-1.0, 2.0]], np.float32)
    with torch.no_grad():
        probabilities = model(torch.from_numpy(rows))[0].exp()
        wanted = inverse_gap_weights(model.module(torch.from_numpy(rows))[0], torch.tensor([20.0]))  # type: ignore[union-attr,operator]
    assert torch.allclose(probabilities, wanted, atol=1e-5)
    assert probabilities[0, 2] == 0.0
    assert float(probabilities[1].min()) > 0.0
    assert probabilities.sum(dim=1).tolist() == pytest.approx([1.0] * 2)
    if build is Fast:
        assert check_infer(model, rows) < 1e-5
    else:
        assert not hasattr(model, "infer")


def test_the_model_follows_the_learner() -> None:
    """Whoever asks for a policy gradient gets logits, and nobody estimates the rewards of two heads."""
    one, two = (ActionHead("h", 3),), (ActionHead("h", 3), ActionHead("i", 2))
    plain = Application("plain", ("a", "b"), one)
    assert isinstance(with_model_for(plain, "policy_gradient").build_model(), LogitsModel)
    assert isinstance(with_model_for(plain, "reward_regression").build_model(), RewardModel)
    own = Application("own", ("a", "b"), one, Own)
    assert type(with_model_for(own, "policy_gradient").build_model()) is Own
    ready = EstimatingModel(lambda: RewardModel(2, 3), 2, 3)
    assert type(ready()) is RewardModel
    with pytest.raises(ApplicationError, match="choose policy_gradient"):
        with_model_for(Application("two", ("a", "b"), two), "reward_regression")


class Writing(Own):
    """A model that writes into what it is given and, where the first feature is 7, gives what is no number."""

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor]:
        bad = observations[:, :1] == 7.0
        (logits,) = super().forward(observations)
        observations.zero_()
        return (torch.where(bad, torch.nan, logits),)

    def infer(self, features: np.ndarray) -> tuple[np.ndarray]:
        with torch.no_grad():
            return tuple(head[0].numpy() for head in self(torch.from_numpy(features)[None]))


@pytest.mark.parametrize("way", ["forward", "infer"])
def test_the_linear_path_sees_what_came_and_no_number_is_no_mask(way: str) -> None:
    """Whatever the module does to its input; NaN is reported as NaN, not as a choice that must not be taken."""
    model = EstimatingModel(Writing, 2, 3)()
    model.gamma.fill_(20.0)  # type: ignore[union-attr,operator]
    with torch.no_grad():
        model.module.layer.weight.zero_()  # type: ignore[union-attr]
        model.module.layer.bias.zero_()  # type: ignore[union-attr]
        model.direct.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 4.0], [0.0, 0.0]]))  # type: ignore[union-attr,operator]

    def logits(row: list[float]) -> np.ndarray:
        given = np.array(row, np.float32)
        with torch.no_grad():
            found = model.infer(given)[0] if way == "infer" else model(torch.from_numpy(given)[None])[0][0].numpy()  # type: ignore[operator]
        return np.asarray(found)

    assert np.exp(logits([-1.0, 2.0]))[1] > 0.9
    assert np.isnan(logits([7.0, 2.0])).any()
