"""The policy: a forward pass, an action drawn from it, and the exact probability with which it was drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared.application import MASKED, method_infer

_FEW = 8
"""Up to so many choices plain arithmetic is faster than arrays."""


@dataclass(frozen=True, slots=True)
class Draw:
    """An action (one choice for each head), the probability of each choice, and that of all together."""

    action: tuple[int, ...]
    head_probabilities: tuple[float, ...]
    probability: float


class Policy:
    """Draws actions from a model's logits.

    With logits z, temperature T and floor f a choice has the probability (1 - f) * softmax(z / T) + f / (allowed
    choices); masked choices have 0.

    If the model has a method `infer` (see `shared.application.Application`) single observations go to it.
    """

    def __init__(
        self, model: torch.nn.Module, temperature: float = 1.0, floor: float = 0.0, seed: int | None = None
    ) -> None:
        self.model = model.eval()
        self._infer = method_infer(model)
        self.temperature = temperature
        self.floor = floor
        self.rng = np.random.default_rng(seed)

    def act(self, features: NDArray[np.float32]) -> Draw:
        """Draw an action for one observation, float32[F]."""
        return self.act_many(features[np.newaxis])[0]

    def act_many(self, features: NDArray[np.float32]) -> list[Draw]:
        """Draw an action for each observation of float32[B, F], in one forward pass.

        Raises FloatingPointError if the model's logits are not numbers.
        """
        if self._infer is not None and len(features) == 1:
            return [self._draw(self._infer(features[0]))]
        with torch.inference_mode():
            heads = [logits.numpy() for logits in self.model(torch.from_numpy(features))]
        return [self._draw([logits[row] for logits in heads]) for row in range(len(features))]

    def _draw(self, heads: Sequence[NDArray[np.float32]]) -> Draw:
        action, probabilities, joint = [], [], 1.0
        for logits in heads:
            if self.floor:
                choice, probability = self._choose(self.distribution(logits))
            elif len(logits) <= _FEW:
                choice, probability = self._choose_of_few(logits.tolist())
            else:
                choice, probability = self._choose(self._weights(logits))
            action.append(choice)
            probabilities.append(probability)
            joint *= probability
        return Draw(tuple(action), tuple(probabilities), joint)

    def distribution(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities float64[n] of one head's choices from its logits float32[n]."""
        weights = self._weights(logits)
        weights /= weights.sum()
        if self.floor:
            allowed = ~(logits <= MASKED / 2)
            weights = (1.0 - self.floor) * weights + allowed * (self.floor / np.count_nonzero(allowed))
        return weights

    def _weights(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """The softmax of the logits but for its denominator."""
        weights = logits.astype(np.float64)
        weights -= weights.max()
        if self.temperature != 1.0:
            weights /= self.temperature
        return np.exp(weights, out=weights)

    def _choose(self, weights: NDArray[np.float64]) -> tuple[int, float]:
        """A choice drawn in proportion to its weight, and its probability."""
        cumulative = weights.cumsum()
        total = float(cumulative[-1])
        # Scaled by the sum, so that rounding never picks a choice of probability 0 at the end.
        choice = int(cumulative.searchsorted(self.rng.random() * total, side="right"))
        if choice == len(weights):
            choice = _last_possible(weights.tolist(), total)
        return choice, float(weights[choice]) / total

    def _choose_of_few(self, logits: list[float]) -> tuple[int, float]:
        """`_choose` of the softmax, without arrays."""
        most = max(logits)
        weights = [math.exp((logit - most) / self.temperature) for logit in logits]
        total = sum(weights)
        left = self.rng.random() * total
        for choice, weight in enumerate(weights):
            if left < weight:
                return choice, weight / total
            left -= weight
        choice = _last_possible(weights, total)
        return choice, weights[choice] / total


def _last_possible(weights: list[float], total: float) -> int:
    """The last choice with a weight: where rounding may lead past the end."""
    if not total > 0.0:
        raise FloatingPointError("the policy's logits are not numbers")
    return max(choice for choice, weight in enumerate(weights) if weight > 0.0)
