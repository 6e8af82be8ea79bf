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

import torch
from torch import Tensor, nn

from ..shared.application import ActionHead
from ..shared.config import ContinuousTrainingConfig
from ..shared.learning import Batch, StepResult

_SPREAD_RATE = 0.02
_BLOCKED_AT_MOST = -0.25
_LARGEST = 3.0
"""Advantages are cut off here, in deviations."""
_FLOOR_PULL = 0.05
"""The weight of the entropy when there is none left."""
_VALUE_WIDTH = 32
_VALUE_RATE = 0.003


class Baseline(nn.Module):
    """v(x): F -> 32 -> 1; starts at zero."""

    def __init__(self, features: int, device: torch.device) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, _VALUE_WIDTH, device=device)
        self.out = nn.Linear(_VALUE_WIDTH, 1, device=device)
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
        self.parameters = _joined([parameter for parameter in model.parameters() if parameter.requires_grad])
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate, fused=_fusible(self.parameters))
        self.baseline: Baseline | None = None
        self.value_parameters: list[Tensor] = []
        self.mean = 0.0
        self.variance = 0.0
        self.updates = 0

    def step(self, batch: Batch) -> StepResult:
        """One gradient step on a batch."""
        config = self.config
        baseline = self.baseline or self._add_baseline(batch.observations.shape[1], batch.observations.device)
        log_probability = torch.zeros_like(batch.rewards)
        entropy = torch.zeros((), device=batch.rewards.device)
        for head, logits in enumerate(self.model(batch.observations)):
            log_head = torch.log_softmax(logits, dim=1)
            log_probability = log_probability + log_head.gather(1, batch.actions[:, head : head + 1].long()).squeeze(1)
            entropy = entropy - (log_head.exp() * log_head).sum(dim=1).mean()
        value = baseline(batch.observations)
        error = batch.rewards - value
        with torch.no_grad():
            ratio = log_probability.exp() / batch.probabilities.clamp_min(1e-8)
            weight = ratio.clamp_max(config.importance_clip)
            advantage = self._advantage(batch, error)
        lack = 1.0 - float(entropy.detach()) / config.entropy_floor if config.entropy_floor else 0.0
        pull = config.entropy_weight + _FLOOR_PULL * max(0.0, lack)
        losses = -weight * advantage * log_probability
        policy_loss = losses.mean() - pull * entropy
        loss = policy_loss + (weight * error.square()).mean()
        self._zero_gradients()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, config.gradient_clip)
        self.optimiser.step()
        clipped = float((ratio > config.importance_clip).float().mean())
        each = losses.detach().cpu().numpy()
        return StepResult(float(policy_loss.detach()), float(entropy.detach()), float(norm), clipped, each)

    def _advantage(self, batch: Batch, error: Tensor) -> Tensor:
        sent = batch.rewards[batch.sent] if bool(batch.sent.any()) else batch.rewards
        self.updates += 1
        rate = max(_SPREAD_RATE, 1.0 / self.updates)
        self.mean += rate * (float(sent.mean()) - self.mean)
        self.variance += rate * (float((sent - self.mean).square().mean()) - self.variance)
        advantage = error.detach() / (self.variance**0.5 + 0.05)
        advantage = torch.where(batch.sent, advantage, advantage.clamp_max(_BLOCKED_AT_MOST))
        return advantage.clamp(-_LARGEST, _LARGEST)

    def _add_baseline(self, features: int, device: torch.device) -> Baseline:
        self.baseline = Baseline(features, device)
        self.value_parameters = _joined(list(self.baseline.parameters()))
        self.optimiser.add_param_group({"params": self.value_parameters, "lr": _VALUE_RATE})
        return self.baseline

    def _zero_gradients(self) -> None:
        for tensor in (*self.parameters, *self.value_parameters):
            if tensor.grad is not None:
                tensor.grad.zero_()

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and step counts by position, the baseline's weights, and the rewards' mean and deviation."""
        tensors = {"rewards": torch.tensor([self.mean, self.variance, self.updates], dtype=torch.float64)}
        if self.baseline is not None:
            tensors.update({f"baseline.{name}": value for name, value in self.baseline.state_dict().items()})
        for index, parameter in enumerate((*self.parameters, *self.value_parameters)):
            for name, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"adam.{index}.{name}"] = torch.as_tensor(value)
        return tensors

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
        parameters = (*self.parameters, *self.value_parameters)
        loaded: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            if not key.startswith("adam."):
                continue
            _, position, name = key.split(".", 2)
            parameter = parameters[int(position)]
            if value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{key} has shape {list(value.shape)}, the parameter {list(parameter.shape)}")
            loaded.setdefault(int(position), {})[name] = value.clone().to(parameter.device)
        for index, values in loaded.items():
            self.optimiser.state[parameters[index]] = values
        self.mean, self.variance, self.updates = mean, variance, int(updates)


def _joined(parameters: list[nn.Parameter]) -> list[Tensor]:
    """The parameters as one flat leaf that shares their memory, with their gradients views of its own.

    The optimiser, the norm and the zeroing then take one call each in place of one for each parameter. Parameters that
    do not lie in one float32 storage (those of a FlatModel do) are moved into one, unless they are not all float32
    or on one device: then they are returned as they are.
    """
    if not parameters or any(p.dtype != torch.float32 or p.device != parameters[0].device for p in parameters):
        return list(parameters)
    storages = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    if len(storages) > 1 or not all(parameter.is_contiguous() for parameter in parameters):
        packed = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        at = 0
        for parameter in parameters:
            parameter.data = packed[at : at + parameter.numel()].view(parameter.shape)
            at += parameter.numel()
    first = min(parameter.storage_offset() for parameter in parameters)
    last = max(parameter.storage_offset() + parameter.numel() for parameter in parameters)
    flat = torch.empty(0, dtype=torch.float32, device=parameters[0].device)
    flat.set_(parameters[0].untyped_storage(), first, (last - first,))  # type: ignore[call-overload]
    flat.requires_grad_()
    flat.grad = torch.zeros_like(flat)
    for parameter in parameters:
        start = parameter.storage_offset() - first
        parameter.grad = flat.grad[start : start + parameter.numel()].view(parameter.shape)
    return [flat]


def _fusible(parameters: list[Tensor]) -> bool:
    """True if one fused kernel can update these parameters."""
    return bool(parameters) and all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
