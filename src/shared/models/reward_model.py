"""A model of expected rewards that explores by inverse gap weighting."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..weights.parameter_arrays import ParameterArrays

WIDTH = 64
"""Units of the hidden layer."""
FARTHEST = 8.0
"""Scaled features are cut off here, in deviations."""
_LEAST = 1e-30
"""Probabilities are at least this before the logarithm is taken."""


class RewardModel(nn.Module):
    """Expected rewards of one head's choices, and the probabilities with which they are drawn.

    The expected reward of each of K choices, in deviations of the rewards from their mean, is a network of one hidden
    layer plus a linear path, both on features scaled by `centre` and `inverse` (float32[F], learned from the data and
    published with the weights). `forward` gives the logarithms of the probabilities of inverse gap weighting with
    `gamma` (float32[1]): a choice whose expected reward lies d below the best one's has 1 / (K + gamma d), the best one
    the rest (SquareCB: Foster and Rakhlin, "Beyond UCB", ICML 2020). So what draws from the logits as from any others
    draws exactly by this rule, and every choice keeps a probability above 0.
    """

    def __init__(self, features: int, choices: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, WIDTH)
        self.out = nn.Linear(WIDTH, choices)
        self.direct = nn.Linear(features, choices, bias=False)
        for parameter in (self.out.weight, self.out.bias, self.direct.weight):
            nn.init.zeros_(parameter)
        self.centre: Tensor
        self.inverse: Tensor
        self.gamma: Tensor
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("inverse", torch.ones(features))
        self.register_buffer("gamma", torch.zeros(1))
        self._arrays = ParameterArrays(self)
        self._buffer_arrays = ParameterArrays(self, buffers=True)

    def values(self, observations: Tensor) -> Tensor:
        """Expected rewards of the choices, in deviations from the mean: float32[B, K] of float32[B, F]."""
        # Of numbers near the largest the difference may be infinite, and 0 of infinity is no number.
        scaled = ((observations - self.centre) * self.inverse).nan_to_num(0.0, FARTHEST, -FARTHEST)
        scaled = scaled.clamp(-FARTHEST, FARTHEST)
        values: Tensor = self.out(torch.relu(self.hidden(scaled))) + self.direct(scaled)
        return values

    def forward(self, observations: Tensor) -> tuple[Tensor]:
        """Log probabilities of the choices, (float32[B, K],)."""
        return (torch.log(inverse_gap_weights(self.values(observations), self.gamma).clamp_min(_LEAST)),)

    def infer(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32]]:
        """`forward` for one observation float32[F], in numpy: (float32[K],)."""
        arrays, buffers = self._arrays(), self._buffer_arrays()
        far = (features.astype(np.float64) - buffers["centre"]) * buffers["inverse"]
        scaled = far.clip(-FARTHEST, FARTHEST).astype(np.float32)
        hidden = arrays["hidden.weight"] @ scaled
        hidden += arrays["hidden.bias"]
        np.maximum(hidden, 0.0, out=hidden)
        values = arrays["out.weight"] @ hidden
        values += arrays["out.bias"]
        values += arrays["direct.weight"] @ scaled
        best = int(values.argmax())
        weights = 1.0 / (len(values) + max(float(buffers["gamma"][0]), 0.0) * (values[best] - values))
        weights[best] = 0.0
        weights[best] = 1.0 - weights.sum()
        logits: NDArray[np.float32] = np.log(np.maximum(weights, _LEAST)).astype(np.float32)
        return (logits,)


def inverse_gap_weights(values: Tensor, gamma: Tensor) -> Tensor:
    """The probabilities of RewardModel, float32[B, K], from expected rewards float32[B, K] and gamma float32[1]."""
    best, index = values.max(dim=1, keepdim=True)
    others = 1.0 / (values.shape[1] + gamma.clamp_min(0.0) * (best - values))
    others = others.scatter(1, index, 0.0)
    return others.scatter(1, index, 1.0 - others.sum(dim=1, keepdim=True))
