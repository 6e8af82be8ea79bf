"""The policy that is asked about: with which probability it would take each action, from a checkpoint's model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared.application import MASKED, Application
from ..shared.configuration.config import Config
from ..shared.errors import CheckpointError
from ..shared.instance import seeded_model
from ..shared.learning import meaning_of
from ..shared.models.estimates import RewardEstimates
from ..shared.weights.checkpoints import Checkpoint, differing_meaning, read_manifest
from ..shared.weights.flat_model import FlatModel
from .errors import EvaluationError
from .intervals import Floats

Masks = Sequence[NDArray[np.bool_]] | None
"""Of each head what was allowed, bool[m, size]; None: everything."""


class Target(Protocol):
    """A policy that can be evaluated."""

    name: str

    def head_probabilities(self, observations: NDArray[np.float32], allowed: Masks = None) -> list[Floats]:
        """The probabilities of each head's choices, float64[m, size], for observations float32[m, F].

        `allowed`: bool[m, size] of each head; a choice that is not has probability 0. None: everything is.
        """


class ModelPolicy:
    """The policy that a server draws from with this model, temperature and exploration floor.

    `saved_at` (seconds since 1970; 0: not known) is when it was saved: it cannot have learned from later decisions.
    """

    saved_at = 0.0

    def __init__(self, name: str, model: torch.nn.Module, temperature: float = 1.0, floor: float = 0.0) -> None:
        self.name = name
        self.model = model.eval()
        self.temperature = temperature
        self.floor = floor

    @classmethod
    def from_checkpoint(cls, folder: Path, application: Application, config: Config) -> ModelPolicy:
        """That of a checkpoint's folder, explored as the configuration says.

        Raises CheckpointError if it cannot be read, or belongs to another model or learner.
        """
        try:
            checkpoint = Checkpoint(folder, read_manifest(folder))
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from error
        difference = differing_meaning(checkpoint.manifest, meaning_of(config.trainer, application))
        if difference:
            raise CheckpointError(f"{folder}: {difference}")
        flat = FlatModel(seeded_model(application, config.trainer.seed))
        checkpoint.load_model(flat)
        settings = config.inference
        policy = cls(f"version {checkpoint.version}", flat.model, settings.temperature, settings.exploration_floor)
        saved = checkpoint.manifest.get("time")
        policy.saved_at = float(saved) if isinstance(saved, (int, float)) else 0.0
        return policy

    def head_probabilities(self, observations: NDArray[np.float32], allowed: Masks = None) -> list[Floats]:
        """See Target. Raises EvaluationError if the model fails or gives no distribution."""
        try:
            with torch.no_grad():
                # A model may write into what it is given.
                rows = torch.from_numpy(observations.copy())
                # As a server asks it: a model of expected rewards explores among what is allowed.
                if allowed is not None and isinstance(self.model, RewardEstimates):
                    found = self.model(rows, torch.from_numpy(allowed[0].copy()))
                else:
                    found = self.model(rows)
            heads = [logits.numpy() for logits in found]
            if allowed is not None:
                heads = [np.where(mask, head, np.float32(MASKED)) for mask, head in zip(allowed, heads, strict=True)]
            return [distributions(logits, self.temperature, self.floor) for logits in heads]
        except EvaluationError as error:
            raise EvaluationError(f"{self.name}: {error}") from None
        except Exception as error:
            raise EvaluationError(f"{self.name}: the model fails on the log's observations: {error!r}") from error


def distributions(logits: NDArray[np.float32], temperature: float, floor: float) -> Floats:
    """Probabilities float64[m, n] of a head's choices from its logits float32[m, n].

    As a server draws: (1 - floor) * softmax(logits / temperature) + floor / (allowed choices); masked choices have 0.
    Raises EvaluationError if logits are not numbers, or every choice of a row is masked.
    """
    most = logits.max(axis=1, keepdims=True).astype(np.float64)
    if not ((most > MASKED / 2) & (most < np.inf)).all():
        raise EvaluationError("logits are not numbers, or every choice is masked")
    weights = np.exp((logits.astype(np.float64) - most) / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    if floor:
        allowed = ~(logits <= MASKED / 2)
        weights = (1.0 - floor) * weights + allowed * (floor / allowed.sum(axis=1, keepdims=True))
    if not np.isfinite(weights).all():
        raise EvaluationError("logits are not numbers")
    probabilities: Floats = weights
    return probabilities


class FixedPolicy:
    """A policy that never looks: the same probabilities, one sequence for each head, whatever is observed."""

    def __init__(self, name: str, probabilities: Sequence[Sequence[float]]) -> None:
        self.name = name
        self._heads = [np.asarray(head, np.float64) for head in probabilities]

    def head_probabilities(self, observations: NDArray[np.float32], allowed: Masks = None) -> list[Floats]:
        """See Target."""
        heads = [np.tile(head, (len(observations), 1)) for head in self._heads]
        if allowed is None:
            return heads
        left = [head * mask for head, mask in zip(heads, allowed, strict=True)]
        return [head / np.maximum(head.sum(axis=1, keepdims=True), 1e-300) for head in left]


def joint_probabilities(heads: Sequence[Floats]) -> Floats:
    """Probabilities of all combinations float64[m, K] from those of each head, the last running fastest."""
    joint: Any = heads[0]
    for head in heads[1:]:
        joint = (joint[:, :, np.newaxis] * head[:, np.newaxis, :]).reshape(len(head), -1)
    probabilities: Floats = joint
    return probabilities
