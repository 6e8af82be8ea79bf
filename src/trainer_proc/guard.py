"""The publish guard: refuses a candidate that must not reach a decision.

Three faults are looked for: a value that is not finite, a jump of the weights, and a policy that collapsed in one step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ..shared.application import ActionHead
from ..shared.config import ContinuousTrainingConfig
from ..shared.weights import FlatModel

_SMALLEST_RMS = 0.1
"""The norm of weights that are smaller than this on average is taken as if they were not: they may start at zero."""
_GLANCE = 4
"""Rows of the batch that are looked at first: another pass of the whole batch would cost a quarter of the step."""


class PublishGuard:
    """Compares a candidate with the weights in force."""

    def __init__(self, flat: FlatModel, heads: tuple[ActionHead, ...], config: ContinuousTrainingConfig) -> None:
        self.flat = flat
        self.heads = heads
        self.config = config

    def find_fault(self, in_force: torch.Tensor, observations: torch.Tensor) -> str | None:
        """What is wrong with the model as it is now, naming the tensor; None if it may be published.

        `in_force` (uint8 [bytes]) holds the weights published last, `observations` float32[B, F] the batch.
        """
        moved, size, count = 0.0, 0.0, 0
        for before, after in self._pairs(in_force):
            moved += float(torch.linalg.vector_norm(after - before)) ** 2
            size += float(torch.linalg.vector_norm(before)) ** 2
            count += before.numel()
        if not math.isfinite(moved):
            return self._name_tensor(in_force)
        limit = self.config.guard_max_jump
        jump = math.sqrt(moved) / max(math.sqrt(size), _SMALLEST_RMS * math.sqrt(count), 1e-12)
        if limit and jump > limit:
            name = self._name_tensor(in_force)
            return f"the weights would move by {jump:.2g} of their norm (guard_max_jump: {limit:g}); {name}"
        return self._collapse(in_force, observations)

    def _pairs(self, in_force: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        specs = self.flat.layout.specs
        if all(spec.dtype == "F32" for spec in specs):
            yield in_force.view(torch.float32), self.flat.flat.view(torch.float32)
            return
        before = self.flat.layout.views(in_force)
        for name, after in self.flat.state().items():
            if after.is_floating_point():
                yield before[name].float(), after.float()

    def _name_tensor(self, in_force: torch.Tensor) -> str:
        before = self.flat.layout.views(in_force)
        farthest, name = -1.0, ""
        for candidate, after in self.flat.state().items():
            if not after.is_floating_point():
                continue
            if not bool(torch.isfinite(after).all()):
                return f"{candidate} has a value that is not finite"
            distance = float((after.double() - before[candidate].double()).abs().max()) if after.numel() else 0.0
            if distance > farthest:
                farthest, name = distance, candidate
        return f"{name} moves farthest, by {farthest:.2g}"

    def _collapse(self, in_force: torch.Tensor, observations: torch.Tensor) -> str | None:
        limit = self.config.guard_min_entropy
        if not limit or self._entropy(observations[:_GLANCE]) >= 2 * limit:
            return None
        after = self._entropy(observations)
        if not math.isfinite(after):
            return "the policy's probabilities are not finite"
        if after >= limit:
            return None
        before = self._entropy(observations, in_force)
        if after < 0.5 * before:
            return f"the policy's entropy would fall from {before:.2g} to {after:.2g} nats in one step"
        return None

    def _entropy(self, observations: torch.Tensor, weights: torch.Tensor | None = None) -> float:
        """The policy's mean entropy on these observations, in nats: the candidate's, or with `weights` theirs."""
        model = self.flat.model
        was_training = model.training
        model.eval()
        with torch.no_grad():
            heads = (
                model(observations)
                if weights is None
                else torch.func.functional_call(model, dict(self.flat.layout.views(weights)), (observations,))
            )
            entropy = 0.0
            for logits in heads:
                log_probability = torch.log_softmax(logits, dim=1)
                entropy -= float((log_probability.exp() * log_probability).sum(dim=1).mean())
        model.train(was_training)
        return entropy
