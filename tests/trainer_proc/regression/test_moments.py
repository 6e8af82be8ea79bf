"""Running mean and variance."""

from __future__ import annotations

import torch
from tandem.trainer_proc.regression.moments import Moments


def test_moments_are_those_of_all_rows() -> None:
    """Mean and variance of several batches together."""
    rows, moments = torch.rand(300, 2, dtype=torch.float64) * 1e6, Moments(2, torch.device("cpu"))
    for part in (rows[:10], rows[10:200], rows[200:]):
        moments.add(part)
    assert torch.allclose(moments.mean, rows.mean(dim=0))
    assert torch.allclose(moments.variance, rows.var(dim=0, unbiased=False))
    moments.add(torch.full((1, 2), 3.0, dtype=torch.float64))
    assert bool(torch.isfinite(moments.deviation).all())
