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


class Seeing(Plain):
    """Plain, and remembers what it was shown as new: the values of the first feature."""

    def __init__(self, model: torch.nn.Module, heads: Any, config: Any) -> None:
        super().__init__(model, heads, config)
        self.seen: list[float] = []
        self.count = torch.zeros(1)

    def observe(self, batch: Batch) -> None:
        """Experiences that are new."""
        self.seen += batch.observations[:, 0].tolist()
        self.count += len(batch)

    def state(self) -> dict[str, torch.Tensor]:
        """How many were seen."""
        return {"count": self.count}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """As many as another saw."""
        self.count.copy_(state["count"])
