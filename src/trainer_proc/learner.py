"""The default learner: an off-policy policy gradient for a contextual bandit.

For an action drawn with probability b by the policy of its time and with probability p by today's, reward r and
baseline v:

    loss = - mean(min(p / b, clip) * (r - v) * log p) - entropy_weight * mean(H)

The truncated importance weight min(p / b, clip) corrects for the age of the experience with bounded variance
("Truncated Importance Sampling", JCGS 17(2), 2008); the gradient with a baseline is REINFORCE. The baseline is the
running mean of the SEND rewards; a blocked action never earns more than it, so being blocked always discourages.
"""

from __future__ import annotations

import torch

from ..shared.application import ActionHead
from ..shared.config import ContinuousTrainingConfig
from ..shared.learning import Batch, StepResult

_BASELINE_RATE = 0.05
_BLOCKED_AT_MOST = -0.25
"""The advantage of a blocked action in standard deviations of the reward, at most."""


class PolicyGradient:
    """Adam on the loss above, with gradient clipping. Trains `model` in place."""

    def __init__(self, model: torch.nn.Module, heads: tuple[ActionHead, ...], config: ContinuousTrainingConfig) -> None:
        self.model = model
        self.heads = heads
        self.config = config
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate)
        self.baseline = 0.0
        self.spread = 0.0
        self.updates = 0

    def step(self, batch: Batch) -> StepResult:
        """One gradient step on a batch."""
        logits = self.model(batch.observations)
        log_probability = torch.zeros_like(batch.rewards)
        entropy = torch.zeros_like(batch.rewards)
        for head, values in enumerate(logits):
            log_head = torch.log_softmax(values, dim=1)
            log_probability = log_probability + log_head.gather(1, batch.actions[:, head : head + 1]).squeeze(1)
            entropy = entropy - (log_head.exp() * log_head).sum(dim=1)
        advantage = self._advantage(batch)
        with torch.no_grad():
            ratio = log_probability.exp() / batch.probabilities.clamp_min(1e-8)
            weight = ratio.clamp_max(self.config.importance_clip)
            clipped = (ratio > self.config.importance_clip).float().mean()
        loss = -(weight * advantage * log_probability).mean() - self.config.entropy_weight * entropy.mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_clip)
        self.optimiser.step()
        return StepResult(float(loss.detach()), float(entropy.detach().mean()), float(norm), float(clipped))

    def _advantage(self, batch: Batch) -> torch.Tensor:
        rewards = batch.rewards
        sent = rewards[batch.sent] if bool(batch.sent.any()) else rewards
        rate = max(_BASELINE_RATE, 1.0 / (self.updates + 1))
        self.baseline += rate * (float(sent.mean()) - self.baseline)
        deviation = float(((sent - self.baseline) ** 2).mean())
        self.spread += rate * (deviation - self.spread)
        self.updates += 1
        advantage = (rewards - self.baseline) / (self.spread**0.5 + 1e-3)
        return torch.where(batch.sent, advantage, advantage.clamp_max(_BLOCKED_AT_MOST)).clamp(-3.0, 3.0)

    def state(self) -> dict[str, torch.Tensor]:
        """Adam's moments and step counts by parameter position, and the baseline."""
        tensors = {"baseline": torch.tensor([self.baseline, self.spread, self.updates], dtype=torch.float64)}
        for index, parameter in enumerate(self.parameters):
            for name, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"adam.{index}.{name}"] = torch.as_tensor(value)
        return tensors

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `state` gave. Raises KeyError or ValueError if it does not fit this model."""
        baseline, spread, updates = (float(value) for value in state["baseline"])
        loaded: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            if not key.startswith("adam."):
                continue
            _, position, name = key.split(".", 2)
            parameter = self.parameters[int(position)]
            if value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{key} has shape {list(value.shape)}, the parameter {list(parameter.shape)}")
            # Adam keeps its step count on the CPU.
            loaded.setdefault(int(position), {})[name] = value.clone() if name == "step" else value.to(parameter)
        for index, values in loaded.items():
            self.optimiser.state[self.parameters[index]] = values
        self.baseline, self.spread, self.updates = baseline, spread, int(updates)
