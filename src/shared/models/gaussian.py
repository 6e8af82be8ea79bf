"""The model of a number from a range: what each number would earn, and the normal distribution to draw it from."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..actions.heads import GaussianHead
from ..actions.number import LARGEST_LOG, LEAST_LOG
from .candidates import CandidateModel
from .estimates import Taken

_GRID = 33
"""Numbers of the range whose expected rewards are compared."""
_PER_GAMMA = 0.125
"""Sharpness of that comparison: about the root of the number of experiences, as rewards are known that well."""


class GaussianModel(CandidateModel):
    """Expected rewards of a number a (the range is -1 to 1) from x, a, a^2 and their products; and from those of a
    grid of numbers, weighed by the exponential of what they earn, the mean and deviation to draw by.

    The more experiences there are, the sharper: the deviation falls to that of `LEAST_LOG`.
    """

    def __init__(self, features: int, head: GaussianHead) -> None:
        super().__init__(features, _GRID, 2)
        self._middle, self._half = (head.high + head.low) / 2, (head.high - head.low) / 2
        self._numbers = np.linspace(-1.0, 1.0, _GRID, dtype=np.float32)
        self._powers = np.stack([self._numbers, self._numbers**2], axis=1)

    def taken(self, batch: Taken) -> tuple[Tensor, Tensor]:
        """See RewardEstimates: joint features with the number that was drawn, and the only choice."""
        observations, values = batch.observations, batch.values
        number = observations.new_zeros(len(observations)) if values is None else (values[:, 0] - self._middle)
        number = number / self._half
        powers = torch.stack([number, number**2], dim=1)[:, None, :]
        return self.joint.rows(observations, powers).squeeze(1), torch.zeros_like(batch.actions[:, 0]).long()

    def values(self, observations: Tensor) -> Tensor:
        """Expected rewards of the grid's numbers, float32[B, G] of float32[B, F]."""
        powers = torch.from_numpy(self._powers).to(observations.device).expand(len(observations), -1, -1)
        rows = self.joint.rows(observations, powers).flatten(0, 1)
        return self.with_linear(self.network(rows), self.scaled(rows)).reshape(len(observations), _GRID)

    def forward(self, observations: Tensor, allowed: Tensor | None = None) -> tuple[Tensor]:
        """Mean and logarithm of the deviation, (float32[B, 2],) of float32[B, F]."""
        numbers = torch.from_numpy(self._numbers).to(observations.device)
        weights = torch.softmax(self.values(observations) * (self.gamma.clamp_min(0.0) * _PER_GAMMA), dim=1)
        mean = weights @ numbers
        variance = (weights * (numbers - mean[:, None]).square()).sum(dim=1)
        log_deviation = 0.5 * variance.clamp_min(math.exp(2 * LEAST_LOG)).log()
        return (torch.stack([mean, log_deviation], dim=1),)

    def entropy(self, network: Tensor, scaled: Tensor, batch: Taken) -> Tensor:
        """See RewardEstimates; of the normal distribution."""
        return self.forward(batch.observations)[0][:, 1].mean() + 0.5 * math.log(2 * math.pi * math.e)

    def infer(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32]]:
        """`forward` for one observation float32[F], in numpy: (float32[2],)."""
        joint = self.joint.of_arrays(features, self._powers)
        gamma = max(float(self._scale()["gamma"][0]), 0.0)
        values = self.expected(joint) * (gamma * _PER_GAMMA)
        weights = np.exp(values - values.max())
        weights /= weights.sum()
        mean = weights @ self._numbers
        variance = weights @ np.square(self._numbers - mean)
        log_deviation = 0.5 * math.log(max(float(variance), math.exp(2 * LEAST_LOG)))
        return (np.array([mean, log_deviation], np.float32),)


def log_density(parameters: Tensor, numbers: Tensor, head: GaussianHead) -> tuple[Tensor, Tensor]:
    """Log density (per unit of the head's range) of numbers float32[B] under mean and log deviation float32[B, 2], and
    the entropy of the distribution without its ends: float32[B] each. See `shared.actions.number`.
    """
    middle, half = (head.high + head.low) / 2, (head.high - head.low) / 2
    raw = parameters[:, 0]
    # Cut off for what is computed but not for the gradient, which must find the way back.
    mean = raw + (raw.clamp(-1.0, 1.0) - raw).detach()
    log_deviation = parameters[:, 1].clamp(LEAST_LOG, LARGEST_LOG)
    deviation = log_deviation.exp()
    place = ((numbers - middle) / half - mean) / deviation
    inside = torch.special.ndtr((1.0 - mean) / deviation) - torch.special.ndtr((-1.0 - mean) / deviation)
    log = -0.5 * place.square() - 0.5 * math.log(2 * math.pi) - log_deviation - inside.log() - math.log(half)
    return log, log_deviation + 0.5 * math.log(2 * math.pi * math.e) + math.log(half)
