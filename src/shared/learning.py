"""What a learner is given and what it must offer, and the training reward of a batch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from .application import MASKED, ActionHead, Application
from .configuration.config import ContinuousTrainingConfig
from .errors import ApplicationError
from .experiences.records import SEND, RecordLayout
from .memory.layout import HISTORY_COLUMNS
from .models.default import DefaultModel, EstimatingModel
from .modules import describe, import_beside


@dataclass(frozen=True)
class Batch:
    """Completed experiences as tensors on the learner's device.

    observations float32[B, F], actions int64[B, heads], rewards float32[B] (training rewards), probabilities
    float32[B] (with which the actions were drawn), sent bool[B], allowed bool[B, choices] (which of the heads' choices
    were, one head's after the other's; None: all). With a CandidateHead also candidates float32[B, M, C] and mask
    bool[B, M] (which of them there were), with a GaussianHead values float32[B, 1] (the numbers drawn).
    """

    observations: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    probabilities: torch.Tensor
    sent: torch.Tensor
    allowed: torch.Tensor | None = None
    candidates: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    values: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def inputs(self) -> torch.Tensor:
        """What a model is given: the observations, and behind them candidates and mask if there are any."""
        if self.candidates is None or self.mask is None:
            return self.observations
        return torch.cat([self.observations, self.candidates.flatten(1), self.mask.to(torch.float32)], dim=1)


@dataclass(frozen=True)
class StepResult:
    """What one training step reports: mean loss, mean policy entropy (nats), gradient norm before clipping, and the
    share of importance weights that were clipped; and each experience's own loss, float32[B], if the learner tells it
    (prioritized sampling goes by it)."""

    loss: float
    entropy: float
    gradient_norm: float
    clipped_share: float
    losses: NDArray[np.float32] | None = None


class Learner(Protocol):
    """Turns batches into better weights. Built as `Learner(model, heads, config)`; trains `model` in place."""

    def __init__(
        self, model: torch.nn.Module, heads: tuple[ActionHead, ...], config: ContinuousTrainingConfig
    ) -> None: ...

    def step(self, batch: Batch) -> StepResult:
        """One gradient step. May raise; the model must then be taken as spoilt."""

    # A learner may also offer `is_finite() -> bool`: True if nothing in its state is NaN or infinite. Without it, every
    # tensor of `state()` is looked at after each step. And an attribute `experiences`: before each step it is set to
    # how many there are to learn from; batches are as large as suits replay, and training rests while nothing is new.
    # And a method `observe(batch)`: it is given each experience once, before the steps of a tick.

    def state(self) -> dict[str, torch.Tensor]:
        """Everything besides the model that a resumed learner needs, by name."""

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what `state` gave. Raises KeyError or ValueError if it is another learner's."""


_LEARNERS = {
    "reward_regression": "tandem.trainer_proc.regression.reward_regression:RewardRegression",
    "policy_gradient": "tandem.trainer_proc.learner:PolicyGradient",
}


def learner_name(setting: str, heads: Sequence[ActionHead]) -> str:
    """The learner that `trainer.learner` means: `auto` is reward_regression for one head, else policy_gradient."""
    if setting == "auto":
        return "reward_regression" if len(heads) == 1 else "policy_gradient"
    return setting


def meaning_of(config: ContinuousTrainingConfig, application: Application) -> dict[str, str]:
    """What weights of this application mean: by which `learner` they are trained and by which rule explored.

    `application` is that of `shared.instance.configured_application`.
    """
    build = application.build_model
    estimates = isinstance(build, EstimatingModel) or (isinstance(build, DefaultModel) and not build.as_logits)
    exploration = "inverse_gap_weighting" if estimates else "softmax"
    return {"learner": learner_name(config.learner, application.heads), "exploration": exploration}


def build_learner(
    model: torch.nn.Module,
    heads: tuple[ActionHead, ...],
    config: ContinuousTrainingConfig,
    folder: Path | str = ".",
) -> Learner:
    """The learner that `config.learner` means, for this model. Raises what `load_learner` and the learner raise."""
    learner: Learner = load_learner(learner_name(config.learner, heads), folder)(model, heads, config)
    return learner


def load_learner(name: str, folder: Path | str = ".") -> Any:
    """The learner class that `module:attribute` names; the module may lie beside the configuration, in `folder`.

    Raises ApplicationError saying which part is wrong.
    """
    module_name, colon, attribute = _LEARNERS.get(name, name).partition(":")
    if not colon or not module_name or not attribute.isidentifier():
        raise ApplicationError(f"trainer.learner: {name!r} is not of the form module:attribute")
    module = import_beside("trainer.learner", module_name, Path(folder))
    learner = getattr(module, attribute, None)
    if not callable(learner):
        raise ApplicationError(f"trainer.learner: {describe(module)} has no {attribute!r}")
    return learner


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """The logarithms of one head's probabilities, float32[B, n], from its logits float32[B, n].

    A logit of -inf counts as MASKED: probability 0, and an entropy and gradients that are numbers.
    """
    if float(logits.detach().amin()) < MASKED:
        # Not always: clamping costs as much as the rest.
        logits = logits.clamp_min(MASKED)
    return torch.log_softmax(logits, dim=1)


def given_allowed(heads: Sequence[torch.Tensor], allowed: torch.Tensor | None) -> list[torch.Tensor]:
    """The heads' logits, each float32[B, size], MASKED where a choice was not allowed (bool[B, choices]; None: all)."""
    if allowed is None:
        return list(heads)
    masks = torch.split(allowed, [logits.shape[1] for logits in heads], dim=1)
    return [torch.where(mask, logits, MASKED) for mask, logits in zip(masks, heads, strict=True)]


def copied_state(learner: Learner) -> dict[str, torch.Tensor]:
    """A copy of the learner's state; nothing if it has none (some have none before their first step)."""
    try:
        return {name: tensor.clone() for name, tensor in learner.state().items()}
    except (AttributeError, KeyError):
        return {}


def training_rewards(rows: NDArray[Any], config: ContinuousTrainingConfig, gated: bool = True) -> NDArray[np.float32]:
    """The reward each record is trained with: float32[n].

    SEND: simulation_reward_weight * expected + actual_reward_weight * actual; without a gate nobody expects anything,
    and it is the actual reward. WAIT: expected * wait_reward_multiplier.
    """
    expected = rows["expected_reward"]
    sent = rows["actual_reward"]
    if gated:
        sent = config.simulation_reward_weight * expected + config.actual_reward_weight * sent
    blocked = expected * config.wait_reward_multiplier
    return np.where(rows["decision"] == SEND, sent, blocked).astype(np.float32)


def make_batch(
    rows: NDArray[Any], rewards: NDArray[np.float32], device: torch.device, records: RecordLayout | None = None
) -> Batch:
    """Records (structured [B]) and their training rewards as tensors; with their layout also what was allowed."""

    def tensor(array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Batch(
        observations=tensor(rows["observation"]),
        actions=tensor(rows["action"].astype(np.int64)),
        rewards=tensor(rewards),
        probabilities=tensor(rows["probability"]),
        sent=tensor(rows["decision"] == SEND),
        **({} if records is None else {name: tensor(array) for name, array in _offered(rows, records).items()}),
    )


def _offered(rows: NDArray[Any], records: RecordLayout) -> dict[str, NDArray[Any]]:
    allowed = records.allowed(rows)
    found = {"allowed": allowed}
    if records.candidates:
        found |= {"candidates": rows["candidates"], "mask": allowed}
    if records.values:
        found["values"] = rows["value"]
    return found


def history_row(
    version: int, rows: NDArray[Any], rewards: NDArray[np.float32], result: StepResult, step_ms: float = 0.0
) -> dict[str, float]:
    """The step-history row of a training step on `rows` that became `version`."""
    lag = (version - 1) - rows["version"].astype(np.int64)
    sent = rows["decision"] == SEND
    return {
        "version": version,
        "time": time.time(),
        "loss": result.loss,
        "reward": float(rewards.mean()),
        "actual_reward": float(rows["actual_reward"][sent].mean()) if sent.any() else float("nan"),
        "batch": len(rows),
        "step_ms": step_ms,
        "gradient_norm": result.gradient_norm,
        "entropy": result.entropy,
        "lag_mean": float(lag.mean()),
        "lag_max": float(lag.max()),
        "clipped_share": result.clipped_share,
        "event": 0.0,
        "send_share": float(sent.mean()),
        "expected_reward": float(rows["expected_reward"].mean()),
    }


def event_row(version: int, event: int) -> dict[str, float]:
    """The step-history row of a `version` that came from no step: event 1 a rollback, 2 a reset. The rest is NaN."""
    row = {name: math.nan for name, _ in HISTORY_COLUMNS}
    return {**row, "version": version, "time": time.time(), "batch": 0.0, "step_ms": 0.0, "event": float(event)}
