"""The learner for one head: regression of the reward on observation and choice, with replay.

Every experience says what one choice earned; the model's expected reward of that choice is moved towards it by squared
error, whatever the probability with which it was drawn. Good regression with greedy or inverse gap exploration is the
strong baseline of the field ("A Contextual Bandit Bake-off", JMLR 22:133, 2021). Inputs and rewards are scaled by mean
and deviation, both learned from the data; the model carries those of the inputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..shared.application import ActionHead
from ..shared.configuration.config import ContinuousTrainingConfig
from ..shared.errors import ApplicationError
from ..shared.learning import Batch, StepResult
from ..shared.models.estimates import RewardEstimates, inverse_gap_weights
from ..shared.values import MASKED
from ..shared.weights.finite import is_finite
from .flat_leaf import Joined, adam_state, descend, load_adam_state
from .learner import BLOCKED_AT_MOST

_MEMORY = 20_000
"""Rows over which means and deviations are taken, at most."""
_FARTHEST = 8.0
"""Rewards are cut off here, in deviations from their mean."""
_SHARPNESS = 4.0
"""gamma is this times the root of the number of experiences, for gaps in deviations."""


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

    def tensors(self) -> dict[str, Tensor]:
        """The state by name."""
        return {"mean": self.mean, "variance": self.variance, "count": self.count}


class RewardRegression:
    """Adam on the squared error of the taken choices' expected rewards. Trains a model of RewardEstimates in place.

    Raises ApplicationError if the model is no such one. `experiences` is how many the rings hold, set before a step:
    the more there are, the less is explored.
    """

    def __init__(self, model: nn.Module, heads: tuple[ActionHead, ...], config: ContinuousTrainingConfig) -> None:
        if not isinstance(model, RewardEstimates):
            raise ApplicationError(
                f"trainer.learner: reward_regression trains a model that estimates rewards, as Instance.build_model"
                f" gives it for an application with one head, and no {type(model).__name__}; take that one, or choose"
                " policy_gradient"
            )
        self.model = model
        self.config = config
        self.experiences = 0
        self._joined = Joined([parameter for parameter in model.parameters() if parameter.requires_grad])
        self.parameters = self._joined.leaves
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate)
        device = model.centre.device
        self.inputs = Moments(len(model.centre), device)
        self.rewards = Moments(1, device)

    def step(self, batch: Batch) -> StepResult:
        """One gradient step on a batch."""
        model = self.model
        self._rescale(batch)
        target = self._target(batch)
        values = model.values(batch.observations)
        taken = values.gather(1, batch.actions[:, :1].long()).squeeze(1)
        # The model may mask by now what it once took.
        losses = torch.where(taken <= MASKED / 2, 0.0, taken - target).square()
        loss = losses.mean()
        norm = descend(loss, [self._joined], self.optimiser, self.config.gradient_clip)
        with torch.no_grad():
            weights = inverse_gap_weights(values, model.gamma)
            entropy = -(weights * weights.clamp_min(1e-30).log()).sum(dim=1).mean()
        each = losses.detach().cpu().numpy()
        return StepResult(float(loss.detach()), float(entropy), norm, 0.0, each)

    def _rescale(self, batch: Batch) -> None:
        """Follow the data with the model's scaling and exploration."""
        model = self.model
        with torch.no_grad():
            self.inputs.add(batch.observations)
            deviation = self.inputs.deviation
            model.centre.copy_(self.inputs.mean)
            model.inverse.copy_(torch.where(deviation > 0, 1.0 / deviation, 0.0).clamp_max(1e30))
            model.gamma.fill_(_SHARPNESS * math.sqrt(max(self.experiences, len(batch))))

    def _target(self, batch: Batch) -> Tensor:
        """The rewards, scaled: float32[B]."""
        sent = batch.rewards[batch.sent]
        with torch.no_grad():
            self.rewards.add((sent if len(sent) else batch.rewards)[:, None])
            spread = float(self.rewards.deviation) or 1.0
            target = ((batch.rewards - float(self.rewards.mean)) / spread).clamp(-_FARTHEST, _FARTHEST)
            return torch.where(batch.sent, target, target.clamp_max(BLOCKED_AT_MOST))

    def _moments(self) -> dict[str, Tensor]:
        parts = (("inputs", self.inputs), ("rewards", self.rewards))
        return {f"{part}.{name}": value for part, of in parts for name, value in of.tensors().items()}

    def is_finite(self) -> bool:
        """True if nothing in the state is NaN or infinite."""
        return all(is_finite(tensor) for tensor in self.state().values())

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and step counts by position, and mean, variance and count of inputs and rewards."""
        return {**self._moments(), **adam_state(self.optimiser, self.parameters)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave. Raises KeyError or ValueError if it does not fit this model."""
        ours = self._moments()
        for name, tensor in ours.items():
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} has shape {list(state[name].shape)}, not {list(tensor.shape)}")
        load_adam_state(self.optimiser, self.parameters, state)
        for name, tensor in ours.items():
            tensor.copy_(state[name])
