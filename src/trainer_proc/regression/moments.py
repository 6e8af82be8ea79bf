"""Mean and variance of what comes in, with a long memory."""

from __future__ import annotations

import torch
from torch import Tensor

_MEMORY = 20_000
"""Rows over which means and deviations are taken, at most."""


class Moments:
    """Mean and variance of rows float[B, n], each row weighing alike up to `_MEMORY` of them: float64[n]."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.mean = torch.zeros(size, dtype=torch.float64, device=device)
        self.variance = torch.zeros(size, dtype=torch.float64, device=device)
        self.count = torch.zeros(1, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Take in a batch."""
        rows = rows.double()
        self.count += len(rows)
        rate = len(rows) / self.count.clamp_max(max(_MEMORY, len(rows)))
        distance = rows.mean(dim=0) - self.mean
        # Of a mixture: the mean of the variances and the variance of the means.
        self.variance.lerp_(rows.var(dim=0, unbiased=False), rate).add_(rate * (1.0 - rate) * distance.square())
        self.mean.add_(rate * distance)

    @property
    def deviation(self) -> Tensor:
        """The square root of the variance, 0 where rounding could be all of it."""
        deviation = self.variance.sqrt()
        return torch.where(deviation > 1e-6 * self.mean.abs(), deviation, 0.0)

    @property
    def inverse(self) -> Tensor:
        """One over the deviation, 0 of what is always the same."""
        deviation = self.deviation
        return torch.where(deviation > 0, 1.0 / deviation, 0.0).clamp_max(1e30)

    def tensors(self) -> dict[str, Tensor]:
        """The state by name."""
        return {"mean": self.mean, "variance": self.variance, "count": self.count}
