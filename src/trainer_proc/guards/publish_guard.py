"""The publish guard: refuses a candidate that must not reach a decision.

Three faults are looked for: a value that is not finite and was, a jump of the parameters, and a policy that collapsed
in one step. A constant that never was finite (a mask of -inf in a buffer) is no fault, and buffers may jump: running
statistics do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from ...shared.actions.heads import gaussian_head
from ...shared.application import ActionHead
from ...shared.configuration.config import ContinuousTrainingConfig
from ...shared.learning import log_probabilities
from ...shared.models.estimates import RewardEstimates
from ...shared.weights.finite import became_not_finite, is_finite
from ...shared.weights.flat_model import FlatModel

_SMALLEST_RMS = 0.1
"""The norm of weights that are smaller than this on average is taken as if they were not: they may start at zero."""
_SHORTENED = 0.25
_SHORTENINGS = 10
_GLANCE = 4
"""Rows of the batch that are looked at first: another pass of the whole batch would cost a quarter of the step."""


class PublishGuard:
    """Compares a candidate with the weights in force."""

    def __init__(self, flat: FlatModel, heads: tuple[ActionHead, ...], config: ContinuousTrainingConfig) -> None:
        self.flat = flat
        self.heads = heads
        self.config = config
        named = {name for name, _ in flat.model.named_parameters(remove_duplicate=False)}
        floating = [spec for spec in flat.layout.specs if flat.state()[spec.name].is_floating_point()]
        self._parameters = [spec for spec in floating if spec.name in named]
        self._buffers = [spec.name for spec in floating if spec.name not in named]
        self._stretches: list[tuple[int, int]] = []
        for spec in self._parameters:
            if self._stretches and self._stretches[-1][1] == spec.offset:
                self._stretches[-1] = (self._stretches[-1][0], spec.offset + spec.length)
            else:
                self._stretches.append((spec.offset, spec.offset + spec.length))

    def find_fault(self, in_force: torch.Tensor, observations: torch.Tensor, steps: int = 1) -> str | None:
        """What is wrong with the model as it is now, naming the tensor; None if it may be published.

        `in_force` (uint8 [bytes]) holds the weights published last, `observations` float32[B, F] the batch of the last
        of the `steps` taken since.
        """
        moved, size, count = self._distance(in_force)
        if not math.isfinite(moved) or not self._buffers_finite():
            fault = self.find_not_finite(in_force)
            if fault is not None:
                return fault
            if not math.isfinite(moved):
                moved, size, count = self._distance(in_force, exactly=True)
        limit = steps * self.config.guard_max_jump
        jump = math.sqrt(moved) / max(math.sqrt(size), _SMALLEST_RMS * math.sqrt(count), 1e-12)
        if limit and jump > limit:
            name = self._name_farthest(in_force)
            return f"the weights would move by {jump:.2g} of their norm (guard_max_jump: {limit:g}); {name}"
        return self._collapse(in_force, observations)

    def find_not_finite(self, in_force: torch.Tensor) -> str | None:
        """The first tensor of the model with a value that is not finite where the one in force is; None."""
        name = became_not_finite(self.flat.state(), self.flat.layout.views(in_force))
        return None if name is None else f"{name} has a value that is not finite"

    def shorten(self, in_force: torch.Tensor, observations: torch.Tensor, steps: int = 1) -> float:
        """Pull the parameters back towards those in force until nothing is wrong; the share of the way that is left.

        0 if that does not help: then the candidate is as before or nearer, and must not be published.
        """
        for times in range(1, _SHORTENINGS + 1):
            for before, after in self._pairs(in_force):
                after.copy_(torch.where(torch.isfinite(before), torch.lerp(before, after, _SHORTENED), after))
            if self.find_fault(in_force, observations, steps) is None:
                return _SHORTENED**times
        return 0.0

    def _distance(self, in_force: torch.Tensor, exactly: bool = False) -> tuple[float, float, int]:
        """How far the parameters moved and how large those in force are, as squared norms, and their count.

        `exactly`: without those that are not finite, and where the squares are too large for float32.
        """
        moved, size, count = 0.0, 0.0, 0
        for before, after in self._pairs(in_force):
            before, after = before.float(), after.float()
            difference = after - before
            if exactly:
                known = torch.isfinite(before)
                difference, before = (after.double() - before.double())[known], before[known].double()
            moved += float(torch.linalg.vector_norm(difference)) ** 2
            size += float(torch.linalg.vector_norm(before)) ** 2
            count += before.numel()
        return moved, size, count

    def _buffers_finite(self) -> bool:
        if not self._buffers:
            return True
        tensors = self.flat.state()
        return all(is_finite(tensors[name]) for name in self._buffers)

    def _pairs(self, in_force: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The parameters in force and those of the candidate, in as few pieces as possible."""
        if all(spec.dtype == "F32" for spec in self._parameters):
            for start, end in self._stretches:
                yield in_force[start:end].view(torch.float32), self.flat.flat[start:end].view(torch.float32)
            return
        before, after = self.flat.layout.views(in_force), self.flat.state()
        for spec in self._parameters:
            yield before[spec.name], after[spec.name]

    def _name_farthest(self, in_force: torch.Tensor) -> str:
        before, after = self.flat.layout.views(in_force), self.flat.state()
        farthest, name = -1.0, ""
        for spec in self._parameters:
            difference = (after[spec.name].double() - before[spec.name].double()).abs()
            distance = float(difference.nan_to_num(0.0).max()) if spec.length else 0.0
            if distance > farthest:
                farthest, name = distance, spec.name
        return f"{name} moves farthest, by {farthest:.2g}"

    def _collapse(self, in_force: torch.Tensor, observations: torch.Tensor) -> str | None:
        limit = self.config.guard_min_entropy
        # A model that estimates rewards never gives a choice up, however sure it is, and a number has no choices.
        if (
            not limit
            or isinstance(self.flat.model, RewardEstimates)
            or gaussian_head(self.heads) is not None
            or self._entropy(observations[:_GLANCE]) >= 2 * limit
        ):
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
                log_probability = log_probabilities(logits)
                entropy -= float((log_probability.exp() * log_probability).sum(dim=1).mean())
        model.train(was_training)
        return entropy
