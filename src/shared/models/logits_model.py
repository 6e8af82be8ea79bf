"""A small network of logits for several heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..weights.parameter_arrays import ParameterArrays

WIDTH = 64


class LogitsModel(nn.Module):
    """F -> 64 -> the logits of each head; the last layers start at zero, so that every choice is equally likely.

    Features of very different sizes are drawn together by asinh, which is linear near 0 and logarithmic far from it.
    """

    def __init__(self, features: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, WIDTH)
        heads = [nn.Linear(WIDTH, size) for size in sizes]
        for head in heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)
        self._arrays = ParameterArrays(self)

    def forward(self, observations: Tensor) -> tuple[Tensor, ...]:
        """Logits float32[B, size] of each head, of float32[B, F]."""
        hidden = torch.relu(self.hidden(torch.asinh(observations)))
        return tuple(head(hidden) for head in self.heads)

    def infer(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """`forward` for one observation float32[F], in numpy: float32[size] of each head."""
        arrays = self._arrays()
        hidden = arrays["hidden.weight"] @ np.arcsinh(features)
        hidden += arrays["hidden.bias"]
        np.maximum(hidden, 0.0, out=hidden)
        return tuple(
            arrays[f"heads.{index}.weight"] @ hidden + arrays[f"heads.{index}.bias"] for index in range(len(self.heads))
        )
