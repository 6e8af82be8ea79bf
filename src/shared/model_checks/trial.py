"""A training step on made-up experiences: can the configured learner train this model at all?"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..application import MASKED, Application
from ..configuration.config import ContinuousTrainingConfig
from ..learning import Batch
from ..weights.flat_model import FlatModel

_MOST_ROWS = 32
_STIRRED = 0.05
"""Weights are changed by random numbers of this size: a layer that starts at zero hides what it multiplies."""


class Trial:
    """A small batch that the model could have decided, and what to say if it cannot be learned from."""

    def __init__(
        self,
        application: Application,
        config: ContinuousTrainingConfig,
        observations: list[torch.Tensor],
        logits: Callable[[torch.Tensor], list[NDArray[np.float32]]],
    ) -> None:
        self.application = application
        self.coupled = not config.enabled
        self.config = dataclasses.replace(config, batch_size=1, min_batch_size=1) if self.coupled else config
        self.batch = self._batch(torch.cat(observations), logits, min(_MOST_ROWS, self.config.min_batch_size))

    def _batch(
        self, rows: torch.Tensor, logits: Callable[[torch.Tensor], list[NDArray[np.float32]]], size: int
    ) -> Batch:
        """`size` of these observations with actions that are allowed and the probability of each."""
        heads, random = logits(rows), np.random.default_rng(0)
        usable = np.ones(len(rows), dtype=bool)
        for head in heads:
            usable &= (head > MASKED / 2).any(axis=1) & ~np.isnan(head).any(axis=1) & ~(head == np.inf).any(axis=1)
        chosen = random.choice(np.flatnonzero(usable), size, replace=size > usable.sum())
        actions, probabilities = np.zeros((size, len(heads)), np.int64), np.ones(size)
        for column, head in enumerate(heads):
            for place, row in enumerate(chosen):
                weights = np.where(head[row] > MASKED / 2, np.exp(head[row] - head[row].max(), dtype=np.float64), 0.0)
                weights /= weights.sum()
                actions[place, column] = random.choice(len(weights), p=weights)
                probabilities[place] *= weights[actions[place, column]]
        return Batch(
            observations=rows[torch.from_numpy(chosen)],
            actions=torch.from_numpy(actions),
            rewards=torch.from_numpy(random.uniform(-1.0, 1.0, size).astype(np.float32)),
            probabilities=torch.from_numpy(probabilities.astype(np.float32)),
            sent=torch.ones(size, dtype=torch.bool),
        )

    def attempt_twice(self, attempt: Callable[[], None], own_process: bool) -> Exception | None:
        """What a second attempt raised after the first one had failed too; None if one of them went well."""
        failure: Exception | None = None
        for spared in (own_process, False):
            try:
                with _compiler_spared() if spared else contextlib.nullcontext():
                    attempt()
            except Exception as error:
                failure = error
            else:
                return None
        return failure

    def reason(self, model: nn.Module, failure: Exception) -> str:
        """Why no step is possible, as far as the model shows it."""
        missing = self.missing_gradient(model)
        if missing:
            return f"{missing} ({failure!r})"
        size = f"{len(self.batch)} (trainer.min_batch_size)"
        step = "on one experience at a time (trainer.enabled: false)" if self.coupled else f"on a batch of {size}"
        return f"a step of trainer.learner {step} raises {failure!r}"

    def missing_gradient(self, model: nn.Module) -> str:
        """Why there is nothing that a gradient could change; empty if there is something."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            return "the model has no parameter with requires_grad"
        with contextlib.suppress(Exception), torch.enable_grad():
            if not any(logits.requires_grad for logits in model.train()(self.batch.observations)):
                return (
                    "the logits have no gradient; leave torch.no_grad, torch.set_grad_enabled(False) and detach out of "
                    "forward"
                )
        return ""

    def stir(self, flat: FlatModel) -> bool:
        """Change every trainable parameter a little; False if the model fails then."""
        with torch.no_grad():
            for parameter in flat.model.parameters():
                if parameter.requires_grad and parameter.is_floating_point():
                    parameter.add_(torch.randn_like(parameter), alpha=_STIRRED)
        try:
            with torch.no_grad():
                flat.model.eval()(self.batch.observations)
        except Exception:
            return False
        return True


def take_steps(learner: Any, model: nn.Module, trial: Trial, decide: Callable[[], object]) -> None:
    """Two steps, each after a decision, as trainer and coupled server take them.

    The coupled server trains in evaluation mode what cannot be trained on a single observation otherwise (BatchNorm).
    """
    if trial.coupled:
        try:
            _take_steps(learner, model, trial, decide, training=True)
        except Exception:
            _take_steps(learner, model, trial, decide, training=False)
    else:
        _take_steps(learner, model, trial, decide, training=True)


def _take_steps(learner: Any, model: nn.Module, trial: Trial, decide: Callable[[], object], training: bool) -> None:
    built = learner(model, trial.application.heads, trial.config)
    for _ in range(2):
        decide()
        model.train(training)
        try:
            with torch.enable_grad():
                built.step(trial.batch)
        finally:
            model.eval()


@contextlib.contextmanager
def _compiler_spared() -> Iterator[None]:
    """Spare this process the import of torch's compiler, which takes a second.

    An optimiser's first step imports it only to tell it that nothing is to be compiled, which a stand-in hears as
    well. Whoever really needs it fails with the stand-in and is tried again without.
    """
    name = "torch._dynamo"
    if name in sys.modules:
        yield
        return
    stand_in: Any = ModuleType(name)
    stand_in.graph_break = lambda *_, **__: None
    stand_in.disable = lambda function=None, *_, **__: function
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]
