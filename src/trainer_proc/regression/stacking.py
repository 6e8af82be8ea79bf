"""How much of each of several predictions to take, by how well they foretold what had not been learned from yet.

Stacked regression with weights that are not negative and add up to one (Breiman, "Stacked Regressions", Machine
Learning 24, 1996), judged on each new experience before anything is learned from it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LONG, SHORT, NETWORK = range(3)
_MEMORY = 4000
"""Experiences after which an older judgement counts 1/e."""
_DOUBT_MEMORY = 1000
"""The same, of whether the short memory is better than the long one."""
_CLEARLY = 4.0
"""Standard errors by which it must be better to be taken: only where the world has changed."""
_PRIOR = 5.0
"""Experiences that speak for equal shares of the long memory and the network before there is any."""


class Stacking:
    """Shares of the predictions of a long memory, a short memory and a network."""

    def __init__(self, device: torch.device) -> None:
        self.products = torch.zeros(3, 4, dtype=torch.float64, device=device)
        """Sums of the predictions' products with each other and with the rewards."""
        self.doubt = torch.zeros(2, dtype=torch.float64, device=device)
        """By how much the long memory's squared errors are the larger ones: sum, and sum of squares."""

    def judge(self, predictions: Tensor, rewards: Tensor) -> None:
        """Compare predictions float64[B, 3] with the rewards float64[B] that came, both in deviations."""
        count = len(rewards)
        both = torch.cat([predictions, rewards[:, None]], dim=1)
        self.products.mul_((1.0 - 1.0 / _MEMORY) ** count).add_(predictions.T @ both)
        errors = (predictions - rewards[:, None]).square()
        gains = errors[:, LONG] - errors[:, SHORT]
        sums = torch.stack([gains.sum(), gains.square().sum()])
        self.doubt.mul_((1.0 - 1.0 / _DOUBT_MEMORY) ** count).add_(sums)

    @property
    def has_changed(self) -> bool:
        """True if the short memory foretells clearly better than the long one."""
        gain, square = self.doubt.tolist()
        return bool(gain > _CLEARLY * math.sqrt(square))

    def shares(self) -> Tensor:
        """float64[3]: not negative, 1 in all; the short memory has one only if the world `has_changed`."""
        products = self.products.cpu().numpy()
        squares = products[:, :3] + _PRIOR * np.eye(3)
        sides = products[:, 3] + _PRIOR * np.array([0.5, 0.0, 0.5])
        allowed = [LONG, *([SHORT] if self.has_changed else []), NETWORK]
        best, least = np.array([0.5, 0.0, 0.5]), math.inf
        for size in range(1, len(allowed) + 1):
            for chosen in itertools.combinations(allowed, size):
                shares = _on_the_plane(squares, sides, chosen)
                error = float(shares @ squares @ shares - 2.0 * sides @ shares)
                if (shares >= 0.0).all() and error < least:
                    best, least = shares, error
        return torch.from_numpy(best).to(self.products.device)

    def tensors(self) -> dict[str, Tensor]:
        """The state by name."""
        return {"products": self.products, "doubt": self.doubt}


def _on_the_plane(
    squares: NDArray[np.float64], sides: NDArray[np.float64], chosen: Sequence[int]
) -> NDArray[np.float64]:
    """The shares of the chosen ones, 1 in all, with the least squared error; 0 of the others: float64[3].

    With a Lagrange multiplier for the sum.
    """
    count, at = len(chosen), list(chosen)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = squares[np.ix_(at, at)]
    system[count, count] = 0.0
    shares = np.zeros(len(sides))
    shares[at] = np.linalg.solve(system, np.append(sides[at], 1.0))[:count]
    return shares
