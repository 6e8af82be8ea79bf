"""A learner as a user would write it: plain parameters, plain SGD, nothing flat and no state."""

from __future__ import annotations

from typing import Any

import torch
from tandem.shared.learning import Batch, StepResult


class Plain:
    """REINFORCE with the mean as its baseline."""

    def __init__(self, model: torch.nn.Module, heads: Any, config: Any) -> None:
        self.model = model
        self.optimiser = torch.optim.SGD(model.parameters(), lr=0.05)

    def step(self, batch: Batch) -> StepResult:
        """One gradient step."""
        chosen = torch.zeros(len(batch))
        for head, logits in enumerate(self.model(batch.observations)):
            chosen = chosen + torch.log_softmax(logits, 1).gather(1, batch.actions[:, head : head + 1]).squeeze(1)
        loss = -((batch.rewards - batch.rewards.mean()) * chosen).mean()
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return StepResult(float(loss.detach()), 1.0, 1.0, 0.0)

    def state(self) -> dict[str, torch.Tensor]:
        """Nothing."""
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Nothing."""
