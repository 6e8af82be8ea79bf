"""The default learner: an off-policy policy gradient for a contextual bandit, with a learned baseline.

For an action drawn with probability b by the policy of its time and with probability p by today's, reward r and
baseline v(x), a small network of the learner's own:

    loss = - mean(w A log p) - beta mean(H) + mean(w (v(x) - r)^2),    w = min(p / b, clip),    A = (r - v(x)) / sigma

The truncated importance weight w corrects for the age of the experience with bounded variance ("Truncated Importance
Sampling", JCGS 17(2), 2008); the gradient with a baseline is REINFORCE; sigma is the running deviation of the rewards.
A blocked action's A is at most -0.25, however much the gate expected of it: being blocked always discourages. The pull
towards entropy grows where the policy's entropy falls below a floor, so that it cannot collapse.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..shared.actions.heads import gaussian_head
from ..shared.application import MASKED, ActionHead
from ..shared.configuration.config import ContinuousTrainingConfig
from ..shared.learning import Batch, StepResult, given_allowed, log_probabilities
from ..shared.models.gaussian import log_density
from ..shared.weights.finite import is_finite
from .flat_leaf import Joined, adam_state, descend, load_adam_state

_SPREAD_RATE = 0.02
BLOCKED_AT_MOST = -0.25
"""What a blocked action earned beyond what was expected, in deviations, at most: being blocked always discourages."""
_LARGEST = 3.0
"""Advantages are cut off here, in deviations."""
_FARTHEST = 20.0
"""Rewards are cut off here, in deviations from their mean: the deviation follows a new scale within some steps, and
no single reward can ruin mean, deviation or baseline."""
_LEAST_SPREAD = 0.1
"""Added to the deviation for that: rewards in -1..1 are never cut off."""
_SMALLEST = torch.finfo(torch.float32).tiny
"""Joint probabilities below this are not known: float32 has rounded them away."""
_FLOOR_PULL = 0.05
"""The weight of the entropy when there is none left."""
_VALUE_WIDTH = 32
_VALUE_RATE = 0.003


class Baseline(nn.Module):
    """v(x): F -> 32 -> 1; starts at zero."""

    def __init__(self, features: int, device: torch.device) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, _VALUE_WIDTH, device=device, dtype=torch.float32)
        self.out = nn.Linear(_VALUE_WIDTH, 1, device=device, dtype=torch.float32)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, observations: Tensor) -> Tensor:
        """float32[B] for float32[B, F]."""
        value: Tensor = self.out(torch.relu(self.hidden(observations))).squeeze(1)
        return value


class PolicyGradient:
    """Adam on the loss above, with gradient clipping. Trains `model` in place."""

    def __init__(self, model: nn.Module, heads: tuple[ActionHead, ...], config: ContinuousTrainingConfig) -> None:
        self.model = model
        self.heads = heads
        self.config = config
        self._number = gaussian_head(heads)
        self._choose_parameters()
        self.baseline: Baseline | None = None
        self._joined_values: Joined | None = None
        self.mean = 0.0
        self.variance = 0.0
        self.updates = 0

    def _choose_parameters(self) -> None:
        """Join the parameters that want gradients, under an optimiser of their own."""
        self._all = list(self.model.parameters())
        self._trained = [parameter.requires_grad for parameter in self._all]
        self._joined = Joined([parameter for parameter in self._all if parameter.requires_grad])
        self.optimiser = torch.optim.Adam(
            self.parameters, lr=self.config.learning_rate, fused=_fusible(self.parameters)
        )

    @property
    def parameters(self) -> list[Tensor]:
        """What is optimised of the model: one flat leaf, if that can be."""
        return self._joined.leaves

    @property
    def value_parameters(self) -> list[Tensor]:
        """The same of the baseline."""
        return [] if self._joined_values is None else self._joined_values.leaves

    def step(self, batch: Batch) -> StepResult:
        """One gradient step on a batch."""
        config = self.config
        baseline = self.baseline or self._add_baseline(batch.observations.shape[1], batch.observations.device)
        if [parameter.requires_grad for parameter in self._all] != self._trained:
            self._choose_again()
        log_probability, entropy = self._probabilities(batch)
        rewards = self._bounded(batch.rewards)
        error = rewards - baseline(batch.observations)
        with torch.no_grad():
            ratio = importance(log_probability, batch.probabilities)
            weight = ratio.clamp_max(config.importance_clip)
            advantage = self._advantage(rewards, batch.sent, error)
        lack = 1.0 - float(entropy.detach()) / config.entropy_floor if config.entropy_floor else 0.0
        pull = config.entropy_weight + _FLOOR_PULL * max(0.0, lack)
        losses = -weight * advantage * log_probability
        policy_loss = losses.mean() - pull * entropy
        joined = [self._joined] if self._joined_values is None else [self._joined, self._joined_values]
        loss = policy_loss + (weight * error.square()).mean()
        norm = descend(loss, joined, self.optimiser, config.gradient_clip)
        clipped = float((ratio > config.importance_clip).float().mean())
        each = losses.detach().cpu().numpy()
        return StepResult(float(policy_loss.detach()), float(entropy.detach()), norm, clipped, each)

    def _probabilities(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log probabilities (of a number: densities) of the actions by today's policy, float32[B], and its mean
        entropy, both given what was allowed.
        """
        log_probability = torch.zeros_like(batch.rewards)
        entropy = torch.zeros((), device=batch.rewards.device)
        if self._number is not None:
            parameters = self.model(batch.inputs)[0]
            middle = batch.rewards.new_full((len(batch), 1), (self._number.low + self._number.high) / 2)
            values = middle if batch.values is None else batch.values
            log_probability, spread = log_density(parameters, values[:, 0], self._number)
            return log_probability, spread.mean()
        for head, logits in enumerate(given_allowed(self.model(batch.inputs), batch.allowed)):
            log_head = log_probabilities(logits)
            log_probability = log_probability + log_head.gather(1, batch.actions[:, head : head + 1].long()).squeeze(1)
            entropy = entropy - (log_head.exp() * log_head).sum(dim=1).mean()
        return log_probability, entropy

    def _bounded(self, rewards: Tensor) -> Tensor:
        """The rewards, those far from all others cut off: float32[B]."""
        if self.updates:
            centre, spread = self.mean, self.variance**0.5
        else:
            middle = rewards.median()
            centre, spread = float(middle), float((rewards - middle).abs().median())
        reach = _FARTHEST * (spread + _LEAST_SPREAD)
        return rewards.clamp(centre - reach, centre + reach)

    def _advantage(self, rewards: Tensor, is_sent: Tensor, error: Tensor) -> Tensor:
        sent = rewards[is_sent] if bool(is_sent.any()) else rewards
        self.updates += 1
        rate = max(_SPREAD_RATE, 1.0 / self.updates)
        self.mean += rate * (float(sent.mean()) - self.mean)
        self.variance += rate * (float((sent - self.mean).square().mean()) - self.variance)
        advantage = error.detach() / (self.variance**0.5 + 0.05)
        advantage = torch.where(is_sent, advantage, advantage.clamp_max(BLOCKED_AT_MOST))
        return advantage.clamp(-_LARGEST, _LARGEST)

    def _add_baseline(self, features: int, device: torch.device) -> Baseline:
        self.baseline = Baseline(features, device)
        self._join_values()
        return self.baseline

    def _join_values(self) -> None:
        assert self.baseline is not None
        self._joined_values = Joined(list(self.baseline.parameters()))
        self.optimiser.add_param_group({"params": self.value_parameters, "lr": _VALUE_RATE})

    def _choose_again(self) -> None:
        """Other parameters want gradients than when the learner was built: the optimiser begins anew with them."""
        self._choose_parameters()
        if self.baseline is not None:
            self._join_values()

    def is_finite(self) -> bool:
        """True if nothing in the state is NaN or infinite. First moments reach the weights at once: no need to look."""
        if not math.isfinite(self.mean) or not math.isfinite(self.variance):
            return False
        tensors = list(self.value_parameters)
        for leaf in (*self.parameters, *self.value_parameters):
            moments = self.optimiser.state.get(leaf)
            if moments:
                tensors.append(moments["exp_avg_sq"])
        return all(is_finite(tensor) for tensor in tensors)

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and step counts by position, the baseline's weights, and the rewards' mean and deviation."""
        tensors = {"rewards": torch.tensor([self.mean, self.variance, self.updates], dtype=torch.float64)}
        if self.baseline is not None:
            tensors.update({f"baseline.{name}": value for name, value in self.baseline.state_dict().items()})
        return {**tensors, **adam_state(self.optimiser, (*self.parameters, *self.value_parameters))}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave. Raises KeyError or ValueError if it does not fit this model."""
        mean, variance, updates = (float(value) for value in state["rewards"])
        if "baseline.hidden.weight" in state:
            weight = state["baseline.hidden.weight"]
            baseline = self.baseline or self._add_baseline(weight.shape[1], self.parameters[0].device)
            with torch.no_grad():
                for name, value in baseline.state_dict().items():
                    if state[f"baseline.{name}"].shape != value.shape:
                        raise ValueError(f"baseline.{name} has another shape")
                    value.copy_(state[f"baseline.{name}"])
        load_adam_state(self.optimiser, (*self.parameters, *self.value_parameters), state)
        self.mean, self.variance, self.updates = mean, variance, int(updates)


def importance(log_probability: Tensor, drawn_with: Tensor) -> Tensor:
    """How much more probable the actions are today, float32[B], than when they were drawn.

    From log p float32[B] and the probability of then, float32[B]. That of many heads may be too small for float32: such
    an action weighs 1, as if nothing had changed, unless it is masked today.
    """
    ratio = (log_probability - drawn_with.clamp_min(_SMALLEST).log()).exp()
    if float(drawn_with.min()) < _SMALLEST:
        ratio = torch.where(drawn_with >= _SMALLEST, ratio, (log_probability > MASKED / 2).float())
    return ratio


def _fusible(parameters: list[Tensor]) -> bool:
    """True if one fused kernel can update these parameters."""
    return bool(parameters) and all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
