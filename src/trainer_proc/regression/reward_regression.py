"""The learner for one head: regression of the reward on observation and choice, with replay.

Every experience says what one choice earned. A network is moved towards it by squared error, with replay, whatever the
probability with which the choice was drawn; a linear function is found in closed form from all of them; and what counts
is as much of each as foretells best what was not learned from yet. Good regression with greedy or inverse gap
exploration is the strong baseline of the field ("A Contextual Bandit Bake-off", JMLR 22:133, 2021). Inputs and rewards
are scaled by mean and deviation, both learned from the data; the model carries those of the inputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...shared.application import ActionHead
from ...shared.configuration.config import ContinuousTrainingConfig
from ...shared.errors import ApplicationError
from ...shared.learning import Batch, StepResult
from ...shared.models.estimates import RewardEstimates
from ...shared.values import MASKED
from ...shared.weights.finite import is_finite
from ..flat_leaf import Joined, adam_state, descend, load_adam_state
from ..learner import BLOCKED_AT_MOST
from .linear import LinearPath, fits
from .moments import Moments
from .stacking import LONG, NETWORK, SHORT, Stacking

_FARTHEST = 8.0
"""Rewards are cut off here, in deviations from their mean."""
_SHARPNESS = 8.0
"""gamma is this times the root of the number of experiences, for gaps in deviations."""


class RewardRegression:
    """Adam on the squared error of the network's expected rewards of the taken choices, beside a linear path in closed
    form. Trains a model of RewardEstimates in place.

    Raises ApplicationError if the model is no such one. `experiences` is how many the rings hold, set before a step:
    the more there are, the less is explored. With very many features and choices there is no linear path.
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
        choices, features = model.linear.shape
        self.inputs = Moments(features, device)
        self.rewards = Moments(1, device)
        self.linear = LinearPath(features, choices, device) if fits(features, choices) else None
        self.stacking = Stacking(device)
        self._shares: Tensor | None = None

    @property
    def _observed(self) -> int:
        """Experiences that were seen by `observe`, those that were forgotten included."""
        return 0 if self.linear is None else int(self.linear.count)

    def observe(self, batch: Batch) -> None:
        """Take in new experiences, each once: judge what was foretold of them, then learn the linear path from them."""
        linear = self.linear
        if linear is None:
            return
        with torch.no_grad():
            if not float(self.rewards.count):
                self._add_rewards(batch)
            rewards = self._in_deviations(batch).double()
            observations, choices = self.model.taken(batch)
            if self._observed:
                self._judge(observations, choices, rewards)
            mean, spread = self._scale()
            linear.add(observations, choices, rewards * spread + mean)
            linear.solve(mean, spread)
            self._shares = None

    def _judge(self, observations: Tensor, choices: Tensor, rewards: Tensor) -> None:
        assert self.linear is not None
        model, is_training = self.model, self.model.training
        # Nothing may be learned from what is to be foretold, not even a mean.
        model.eval()
        try:
            # A copy: the model may write into what it is given.
            network = model.network(observations.clone()).gather(1, choices[:, None]).double()
        finally:
            model.train(is_training)
        told = torch.cat([self.linear.foretell(observations, choices), network], dim=1)
        seen = network[:, 0] > MASKED / 2
        self.stacking.judge(told[seen], rewards[seen])

    def step(self, batch: Batch) -> StepResult:
        """One gradient step on a batch."""
        model = self.model
        observations, choices = model.taken(batch)
        self._rescale(observations)
        with torch.no_grad():
            self._add_rewards(batch)
            target = self._in_deviations(batch)
            scaled = model.scaled(observations)
        network = model.network(observations)
        taken = network.gather(1, choices[:, None]).squeeze(1)
        # The model may mask by now what it once took.
        losses = torch.where(taken <= MASKED / 2, 0.0, taken - target).square()
        loss = losses.mean()
        norm = descend(loss, [self._joined], self.optimiser, self.config.gradient_clip)
        with torch.no_grad():
            entropy = model.entropy(network, scaled, batch)
        each = losses.detach().cpu().numpy()
        return StepResult(float(loss.detach()), float(entropy), norm, 0.0, each)

    def _rescale(self, observations: Tensor) -> None:
        """Follow the data with the model's scaling and exploration."""
        model = self.model
        with torch.no_grad():
            self.inputs.add(observations)
            model.centre.copy_(self.inputs.mean)
            model.inverse.copy_(self.inputs.inverse)
            model.gamma.fill_(_SHARPNESS * math.sqrt(max(self.experiences, len(observations))))
            self._combine()

    def _combine(self) -> None:
        """Let the model take as much of the network and of the linear path as the stacking says."""
        model, linear = self.model, self.linear
        if linear is None or not self._observed:
            return
        if self._shares is None:
            self._shares = self.stacking.shares()
        shares = self._shares
        slopes, constant = linear.on_scale(shares[[LONG, SHORT]], model.centre, model.inverse)
        model.linear.copy_(slopes)
        model.constant.copy_(constant)
        model.share.fill_(float(shares[NETWORK]))

    def _add_rewards(self, batch: Batch) -> None:
        sent = batch.rewards[batch.sent]
        self.rewards.add((sent if len(sent) else batch.rewards)[:, None])

    def _scale(self) -> tuple[float, float]:
        """Mean and deviation of the rewards."""
        return float(self.rewards.mean), float(self.rewards.deviation) or 1.0

    def _in_deviations(self, batch: Batch) -> Tensor:
        """The rewards, scaled: float32[B]."""
        mean, spread = self._scale()
        target = ((batch.rewards - mean) / spread).clamp(-_FARTHEST, _FARTHEST)
        return torch.where(batch.sent, target, target.clamp_max(BLOCKED_AT_MOST))

    def _learned(self) -> dict[str, Tensor]:
        parts: list[tuple[str, Any]] = [("inputs", self.inputs), ("rewards", self.rewards)]
        if self.linear is not None:
            parts += [("linear", self.linear), ("stacking", self.stacking)]
        return {f"{part}.{name}": value for part, of in parts for name, value in of.tensors().items()}

    def is_finite(self) -> bool:
        """True if nothing in the state is NaN or infinite."""
        return all(is_finite(tensor) for tensor in self.state().values())

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and step counts by position, and what is learned without gradients."""
        return {**self._learned(), **adam_state(self.optimiser, self.parameters)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave. Raises KeyError or ValueError if it does not fit this model."""
        ours = self._learned()
        for name, tensor in ours.items():
            if state[name].shape != tensor.shape:
                raise ValueError(f"{name} has shape {list(state[name].shape)}, not {list(tensor.shape)}")
        load_adam_state(self.optimiser, self.parameters, state)
        for name, tensor in ours.items():
            tensor.copy_(state[name])
        if self.linear is not None:
            self.linear.resume()
            self._shares = None
