"""The model of a number."""

from __future__ import annotations

import numpy as np
import torch
from tandem.shared.application import Application, GaussianHead, check_forward, check_infer
from tandem.shared.models.gaussian import GaussianModel


def test_the_model_of_a_number_is_a_model() -> None:
    """`forward` and `infer` agree with whatever weights."""
    application = Application("prices", ("x", "y"), (GaussianHead("price", 1.0, 5.0),))
    model = application.build_model()
    check_forward(model, application)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(torch.rand_like(tensor))
    rows = np.random.default_rng(1).normal(0.0, 3.0, (50, 2)).astype(np.float32)
    assert check_infer(model, rows) < 1e-4


def test_the_mean_is_where_most_is_earned() -> None:
    """Of a quadratic in the number that depends on a feature; the sharper, the more is known."""
    model = GaussianModel(1, GaussianHead("price", 0.0, 10.0))
    # Joint features: x, a, a^2, x a, x a^2. The best a is x.
    model.linear.copy_(torch.tensor([[0.0, 0.0, -1.0, 2.0, 0.0]]))
    rows = torch.tensor([[0.5], [-0.7]])
    with torch.no_grad():
        model.gamma.fill_(1e5)
        mean, spread = model(rows)[0].T
        assert torch.allclose(mean, rows[:, 0], atol=0.05)
        model.gamma.fill_(0.0)
        start, wide = model(rows)[0].T
    assert torch.allclose(start, torch.zeros(2), atol=1e-5)
    assert bool((wide > spread + 1.0).all())
