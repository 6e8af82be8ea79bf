"""Which model an application gets that brings none: one that fits its heads, built when torch is there."""

from __future__ import annotations

from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    import torch


class DefaultModel:
    """`build_model` for F features and heads of these sizes.

    One head: its choices' expected rewards are estimated and explored (RewardModel, trained by `reward_regression`).
    Several: a small network of logits (LogitsModel, trained by `policy_gradient`).
    """

    def __init__(self, features: int, sizes: Sequence[int]) -> None:
        self.features = features
        self.sizes = tuple(sizes)

    @property
    def estimates_rewards(self) -> bool:
        """True if the model is a RewardModel."""
        return len(self.sizes) == 1

    def __call__(self) -> torch.nn.Module:
        """A model with fresh weights, drawn by torch's generator."""
        from .logits_model import LogitsModel
        from .reward_model import RewardModel

        if self.estimates_rewards:
            return RewardModel(self.features, self.sizes[0])
        return LogitsModel(self.features, self.sizes)
