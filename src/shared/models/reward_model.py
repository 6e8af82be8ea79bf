"""The model of expected rewards that an application with one head gets which brings none."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..weights.parameter_arrays import ParameterArrays
from .estimates import RewardEstimates

WIDTH = 64
"""Units of the hidden layer."""


class RewardModel(RewardEstimates):
    """A network of one hidden layer with a linear path past it, both on scaled features."""

    def __init__(self, features: int, choices: int) -> None:
        super().__init__(features, choices)
        self.hidden = nn.Linear(features, WIDTH)
        self.out = nn.Linear(WIDTH, choices)
        self.direct = nn.Linear(features, choices, bias=False)
        for parameter in (self.out.weight, self.out.bias, self.direct.weight):
            nn.init.zeros_(parameter)
        self._arrays = ParameterArrays(self)

    def network(self, observations: Tensor) -> Tensor:
        """See RewardEstimates."""
        scaled = self.scaled(observations)
        values: Tensor = self.out(torch.relu(self.hidden(scaled))) + self.direct(scaled)
        return values

    def infer(
        self, features: NDArray[np.float32], allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32]]:
        """`forward` for one observation float32[F] and what is allowed, bool[K], in numpy: (float32[K],)."""
        arrays, scaled = self._arrays(), self.scaled_array(features)
        hidden = arrays["hidden.weight"] @ scaled
        hidden += arrays["hidden.bias"]
        np.maximum(hidden, 0.0, out=hidden)
        values = arrays["out.weight"] @ hidden
        values += arrays["out.bias"]
        values += arrays["direct.weight"] @ scaled
        return (self.logits_array(values, scaled, allowed),)
