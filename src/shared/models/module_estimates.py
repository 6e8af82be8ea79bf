"""A module of the user's own as a model of expected rewards."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..values import MASKED
from ..weights.parameter_arrays import ParameterArrays, method_infer
from .estimates import RewardEstimates


class ModuleEstimates(RewardEstimates):
    """What the module's one head gives is taken for the expected reward of each choice, beside a linear path.

    The module sees the features as they are: what they mean (an index, a mask) is its own business. The linear path
    sees them scaled and starts at zero. A choice that the module masks stays masked.
    """

    def __init__(self, module: nn.Module, features: int, choices: int) -> None:
        super().__init__(features, choices)
        self.module = module
        self.direct = nn.Linear(features, choices, bias=False)
        nn.init.zeros_(self.direct.weight)
        self._direct = ParameterArrays(self.direct)
        infer = method_infer(module)
        if infer is not None:
            self.infer = self._infer

    def network(self, observations: Tensor) -> Tensor:
        """See RewardEstimates."""
        # Before the module, which may write into what it is given.
        linear: Tensor = self.direct(self.scaled(observations))
        own: Tensor = self.module(observations)[0]
        return torch.where(own <= MASKED / 2, own, own + linear)

    def _infer(
        self, features: NDArray[np.float32], allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32]]:
        """`forward` for one observation float32[F] and what is allowed, bool[K], by the module's own `infer`."""
        scaled = self.scaled_array(features)
        linear = self._direct()["weight"] @ scaled
        own = np.asarray(self.module.infer(features)[0])  # type: ignore[operator]
        return (self.logits_array(np.where(own <= MASKED / 2, own, own + linear), scaled, allowed),)
