"""The policy: a forward pass, an action drawn from it, and the exact probability with which it was drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared.application import MASKED


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
    """

    def __init__(
        self, model: torch.nn.Module, temperature: float = 1.0, floor: float = 0.0, seed: int | None = None
    ) -> None:
        self.model = model.eval()
        self.temperature = temperature
        self.floor = floor
        self.rng = np.random.default_rng(seed)

    def act(self, features: NDArray[np.float32]) -> Draw:
        """Draw an action for one observation, float32[F]."""
        return self.act_many(features[np.newaxis])[0]

    def act_many(self, features: NDArray[np.float32]) -> list[Draw]:
        """Draw an action for each observation of float32[B, F], in one forward pass."""
        with torch.inference_mode():
            heads = [logits.numpy() for logits in self.model(torch.from_numpy(features))]
        return [self._draw([logits[row] for logits in heads]) for row in range(len(features))]

    def _draw(self, heads: list[NDArray[np.float32]]) -> Draw:
        action, probabilities, joint = [], [], 1.0
        for logits in heads:
            distribution = self.distribution(logits)
            choice = self._choose(distribution)
            probability = float(distribution[choice])
            action.append(choice)
            probabilities.append(probability)
            joint *= probability
        return Draw(tuple(action), tuple(probabilities), joint)

    def distribution(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities float64[n] of one head's choices from its logits float32[n]."""
        weights = logits.astype(np.float64)
        weights -= weights.max()
        if self.temperature != 1.0:
            weights /= self.temperature
        np.exp(weights, out=weights)
        weights /= weights.sum()
        if self.floor:
            allowed = logits > MASKED / 2
            weights = (1.0 - self.floor) * weights + allowed * (self.floor / np.count_nonzero(allowed))
        return weights

    def _choose(self, distribution: NDArray[np.float64]) -> int:
        cumulative = distribution.cumsum()
        # Scaled by the sum, so that rounding never picks a choice of probability 0 at the end.
        return int(cumulative.searchsorted(self.rng.random() * cumulative[-1], side="right"))
