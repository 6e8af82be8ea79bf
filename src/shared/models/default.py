"""Which model an instance gets: one that fits the heads and the learner. Built when torch is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    import torch


class DefaultModel:
    """`build_model` for F features and heads of these sizes.

    One head: its choices' expected rewards are estimated and explored (RewardModel, trained by `reward_regression`).
    Several, or `as_logits`: a small network of logits (LogitsModel, trained by `policy_gradient`).
    """

    def __init__(self, features: int, sizes: Sequence[int], as_logits: bool = False) -> None:
        self.features = features
        self.sizes = tuple(sizes)
        self.as_logits = as_logits or len(self.sizes) != 1

    def __call__(self) -> torch.nn.Module:
        """A model with fresh weights, drawn by torch's generator."""
        from .logits_model import LogitsModel
        from .reward_model import RewardModel

        if self.as_logits:
            return LogitsModel(self.features, self.sizes)
        return RewardModel(self.features, self.sizes[0])


class EstimatingModel:
    """`build_model` for the user's own `build`, taken for an estimate of rewards (ModuleEstimates)."""

    def __init__(self, build: Callable[[], torch.nn.Module], features: int, choices: int) -> None:
        self.build = build
        self.features = features
        self.choices = choices

    def __call__(self) -> torch.nn.Module:
        """A model with fresh weights; one that estimates rewards already is returned as it is."""
        from .estimates import RewardEstimates
        from .module_estimates import ModuleEstimates

        module = self.build()
        return module if isinstance(module, RewardEstimates) else ModuleEstimates(module, self.features, self.choices)
