"""The linear path in closed form: what each choice earns as a linear function of the features.

A ridge regression for each choice, of everything that was ever seen (a long memory) and of what was seen lately (a
short one). A choice forgets only as it is taken: one that is rarely taken keeps what is known of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...shared.models.estimates import in_deviations
from .moments import Moments

MEMORIES = (20_000, 300)
"""Experiences of a choice after which an older one counts 1/e: long and short."""
_RIDGE = 1.0
_FIRST = 2000
"""Experiences that are kept as they came, to be added up anew in a better scale at each doubling of their number."""
_CHUNK = 1 << 20
"""Numbers that are added up at once, at most."""
_MOST_NUMBERS, _MOST_WORK = 1 << 20, 10**8


def fits(features: int, choices: int) -> bool:
    """True if the sums are small enough to be kept, and the equations to be solved with every tick."""
    return choices * (features + 1) ** 2 <= _MOST_NUMBERS and choices * (features + 1) ** 3 <= _MOST_WORK


class _Sums:
    """Of each choice the sums over its experiences: z z', z r and z, float64; z is the scaled features and a one."""

    def __init__(self, width: int, choices: int, memory: int, device: torch.device) -> None:
        self.memory = memory
        self.squares = torch.zeros(choices, width, width, dtype=torch.float64, device=device)
        self.products = torch.zeros(choices, width, dtype=torch.float64, device=device)
        self.totals = torch.zeros(choices, width, dtype=torch.float64, device=device)

    def add(self, inputs: Tensor, choices: Tensor, rewards: Tensor) -> None:
        """Experiences: float64[B, D], int64[B], float64[B]."""
        kept = (1.0 - 1.0 / self.memory) ** torch.bincount(choices, minlength=len(self.totals)).double()
        self.squares *= kept[:, None, None]
        self.products *= kept[:, None]
        self.totals *= kept[:, None]
        step = max(1, _CHUNK // inputs.shape[1] ** 2)
        for begin in range(0, len(inputs), step):
            part, of = inputs[begin : begin + step], choices[begin : begin + step]
            self.squares.index_add_(0, of, part[:, :, None] * part[:, None, :])
        self.products.index_add_(0, choices, inputs * rewards[:, None])
        self.totals.index_add_(0, choices, inputs)

    def solve(self, mean: float, spread: float) -> Tensor:
        """The weights for rewards in deviations from their mean: float64[K, D]."""
        ridge = _RIDGE * torch.eye(self.totals.shape[1], dtype=torch.float64, device=self.totals.device)
        sides = (self.products - mean * self.totals) / spread
        solved: Tensor = torch.linalg.solve(self.squares + ridge, sides[:, :, None])
        return solved[:, :, 0]


class LinearPath:
    """Two linear functions of the features for each of K choices, of a long and of a short memory.

    Features are scaled by mean and deviation of the first experiences, so that sums of all times can be added.
    """

    def __init__(self, features: int, choices: int, device: torch.device) -> None:
        self._sums = [_Sums(features + 1, choices, memory, device) for memory in MEMORIES]
        self._first: list[tuple[Tensor, Tensor, Tensor]] | None = []
        self._rebuilt = 0
        self._centre = torch.zeros(features, dtype=torch.float64, device=device)
        self._inverse = torch.zeros(features, dtype=torch.float64, device=device)
        self.count = torch.zeros(1, dtype=torch.float64, device=device)
        """Experiences so far, float64[1]."""
        self.weights = torch.zeros(len(MEMORIES), choices, features + 1, dtype=torch.float64, device=device)
        """As solved last: float64[2, K, F + 1]."""

    def _inputs(self, observations: Tensor) -> Tensor:
        scaled = in_deviations(observations.double(), self._centre, self._inverse)
        return torch.cat([scaled, scaled.new_ones(len(scaled), 1)], dim=1)

    def foretell(self, observations: Tensor, choices: Tensor) -> Tensor:
        """What both expect of the choice taken, in deviations: float64[B, 2] of float32[B, F] and int64[B]."""
        return torch.einsum("bd,mbd->bm", self._inputs(observations), self.weights[:, choices])

    def add(self, observations: Tensor, choices: Tensor, rewards: Tensor) -> None:
        """Take in experiences, each once: float32[B, F], int64[B], float64[B]."""
        new = observations, choices, rewards
        self.count += len(rewards)
        if self._first is not None:
            self._first.append(new)
            total = sum(len(part[2]) for part in self._first)
            if total >= 2 * self._rebuilt:
                self._rebuilt = total
                self._rebuild([torch.cat(column) for column in zip(*self._first, strict=True)])
                return
            if total > _FIRST:
                self._first = None
        self._accumulate(*new)

    def _rebuild(self, columns: list[Tensor]) -> None:
        """Begin again, in the scale of all experiences so far."""
        moments = Moments(len(self._centre), self._centre.device)
        moments.add(columns[0])
        self._centre.copy_(moments.mean)
        self._inverse.copy_(moments.inverse)
        for sums in self._sums:
            for tensor in (sums.squares, sums.products, sums.totals):
                tensor.zero_()
        self._accumulate(*columns)

    def _accumulate(self, observations: Tensor, choices: Tensor, rewards: Tensor) -> None:
        inputs = self._inputs(observations)
        for sums in self._sums:
            sums.add(inputs, choices, rewards)

    def solve(self, mean: float, spread: float) -> None:
        """Find the weights anew, for rewards in deviations (`spread`) from their mean."""
        for place, sums in enumerate(self._sums):
            self.weights[place] = sums.solve(mean, spread)

    def on_scale(self, shares: Tensor, centre: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """Both together, weighed by float64[2], as a function of features in a model's scale: float64[K, F], [K]."""
        joint = torch.einsum("m,mkd->kd", shares, self.weights)
        slopes = joint[:, :-1] * self._inverse
        constant = joint[:, -1] + slopes @ (centre.double() - self._centre)
        known = inverse > 0
        return torch.where(known, slopes / torch.where(known, inverse, 1.0).double(), 0.0), constant

    def tensors(self) -> dict[str, Tensor]:
        """The state by name. The first experiences are not among it: their scale is kept, then."""
        named = {"centre": self._centre, "inverse": self._inverse, "count": self.count, "weights": self.weights}
        for name, sums in zip(("long", "short"), self._sums, strict=True):
            named |= {f"{name}.squares": sums.squares, f"{name}.products": sums.products, f"{name}.totals": sums.totals}
        return named

    def resume(self) -> None:
        """The tensors were filled with those of another: what came first is not known any more."""
        self._first = None if float(self.count) else []
        self._rebuilt = 0
