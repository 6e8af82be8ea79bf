"""Which model an instance gets: one that fits the heads and the learner. Built when torch is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..actions.heads import ActionHead, CandidateHead, GaussianHead, candidate_head
from ..errors import ApplicationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import torch


class DefaultModel:
    """`build_model` for F features and heads of these sizes.

    One head: its choices' expected rewards are estimated and explored (RewardModel, trained by `reward_regression`).
    Several, or `as_logits`: a small network of logits (LogitsModel, trained by `policy_gradient`). A head of candidates
    or of a number has models of its own.
    """

    def __init__(
        self, features: int, sizes: Sequence[int], as_logits: bool = False, head: ActionHead | None = None
    ) -> None:
        self.features = features
        self.sizes = tuple(sizes)
        self.as_logits = as_logits or len(self.sizes) != 1
        self._head = head

    @classmethod
    def of(cls, features: int, heads: Sequence[ActionHead], as_logits: bool = False) -> DefaultModel:
        """For F features and these heads."""
        return cls(features, [head.size for head in heads], as_logits, heads[0] if len(heads) == 1 else None)

    def __call__(self) -> torch.nn.Module:
        """A model with fresh weights, drawn by torch's generator."""
        from .logits_model import LogitsModel
        from .reward_model import RewardModel

        if isinstance(self._head, CandidateHead):
            from .candidates import CandidateModel, CandidateScores

            kind = CandidateScores if self.as_logits else CandidateModel
            return kind(self.features, self._head.most, len(self._head.features))
        if isinstance(self._head, GaussianHead) and not self.as_logits:
            from .gaussian import GaussianModel

            return GaussianModel(self.features, self._head)
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


def check_estimable(application: str, head: ActionHead) -> None:
    """Raises ApplicationError if a model of the user's own cannot be taken for an estimate of this head's rewards."""
    if type(head) is not ActionHead:
        raise ApplicationError(
            f"application {application}: trainer.learner: for a {type(head).__name__} reward_regression trains a model"
            " of its own; choose policy_gradient for yours, or leave out build_model"
        )


class ScoringModel:
    """`build_model` for the user's own `build` of a model that scores candidates (CandidateModule)."""

    def __init__(self, build: Callable[[], torch.nn.Module], features: int, head: CandidateHead) -> None:
        self.build = build
        self.features = features
        self.head = head

    def __call__(self) -> torch.nn.Module:
        """A model with fresh weights, in the form in which all models are given candidates."""
        from .candidates import CandidateModule

        return CandidateModule(self.build(), self.features, self.head.most, len(self.head.features))


def with_inputs(
    build: Callable[[], torch.nn.Module], features: int, heads: Sequence[ActionHead]
) -> Callable[[], torch.nn.Module]:
    """`build` as it is or, for candidates, around it what takes one row of inputs apart."""
    head = candidate_head(heads)
    is_ready = head is None or isinstance(build, (DefaultModel, ScoringModel))
    return build if head is None or is_ready else ScoringModel(build, features, head)
