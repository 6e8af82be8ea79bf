"""The models of an application that brings none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tandem.shared.application import ActionHead, Application, check_forward, check_infer
from tandem.shared.models.default import DefaultModel
from tandem.shared.models.reward_model import RewardModel, inverse_gap_weights


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
    model.centre.copy_(torch.tensor([1e6, 0.0]))
    model.inverse.copy_(torch.tensor([1e-3, 1e30]))
    logits = model(torch.tensor([[1e6, 1e-20], [3e38, -3e38]]))[0]
    assert bool(torch.isfinite(logits).all())
    assert logits.exp().sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
