"""Comparing a model's path for single observations with its forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tandem.shared.application import check_infer
from tandem.shared.errors import ApplicationError

FEATURES = np.random.default_rng(1).random((20, 3), dtype=np.float32)


class Model(torch.nn.Module):
    """Two heads; `infer` adds `error` to one logit of the second."""

    def __init__(self, error: float = 0.0, width: int = 2) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 4), torch.nn.Linear(3, 2)
        self.error, self.width = error, width

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.first(observations), self.second(observations)

    def infer(self, features: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
        first, second = (
            layer.weight.detach().numpy() @ features + layer.bias.detach().numpy()
            for layer in (self.first, self.second)
        )
        second[1] += self.error
        return first, second[: self.width]


def test_agreement_is_measured() -> None:
    """The largest difference over all rows and heads; the model stays in its mode."""
    model = Model().train()
    assert check_infer(model, FEATURES) < 1e-6
    assert model.training
    assert check_infer(Model(error=0.5), FEATURES) == pytest.approx(0.5, abs=1e-5)


def test_new_weights_are_followed() -> None:
    """Parameters that are pointed at other memory decide at once."""
    model = Model()
    model.second.bias.data = torch.tensor([3.0, -3.0])
    assert check_infer(model, FEATURES) < 1e-6


def test_a_wrong_shape_is_refused() -> None:
    """And a model without the method."""
    with pytest.raises(ApplicationError, match="shapes"):
        check_infer(Model(width=1), FEATURES)
    with pytest.raises(ApplicationError, match="no method infer"):
        check_infer(torch.nn.Linear(3, 2), FEATURES)
