"""Coupled training: without a trainer process the server trains on each experience as it comes (`enabled: false`).

One experience per step, inside the decision that completed it, as servers did before there was a trainer
(requirement 9.3). Only one server process trains: the holder of the trainer's flock.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
from typing import Any

import numpy as np
import torch

from ..shared.errors import ApplicationError
from ..shared.experiences.records import SEND
from ..shared.instance import Instance, seeded_model
from ..shared.learning import Batch, Learner, StepResult, build_learner, copied_state, history_row, make_batch
from ..shared.telemetry.training_metrics import TrainingMetrics
from ..shared.training.outliers import RewardBounds
from ..shared.training.watch import LearningWatch
from ..shared.weights.binding import Binding
from ..shared.weights.finite import became_not_finite
from ..shared.weights.flat_model import FlatModel
from ..shared.weights.publisher import Publisher, claim_trainer
from ..shared.weights.slots import Slots

log = logging.getLogger(__name__)

WAIT_MULTIPLIER = 0.3
"""A blocked decision is trained at once with this share of its expected reward (requirement 9.3)."""

_CPU = torch.device("cpu")


class CoupledTrainer:
    """Trains the engine's own weights, one record at a time, and publishes each step like a trainer would.

    A model of its own does the training, on the same memory as the engine's: what a model keeps from one forward pass
    to the next (tensors of inference mode, say) is no business of the other's.
    """

    def __init__(self, instance: Instance, flat: FlatModel, slots: Slots) -> None:
        self._instance = instance
        self._flat = flat
        self._config = dataclasses.replace(instance.config.trainer, batch_size=1, min_batch_size=1)
        self._lock_file = claim_trainer(instance.name)
        self._publisher = Publisher(slots)
        self.is_trainer = self._lock_file is not None
        self._metrics = TrainingMetrics(instance.control) if self.is_trainer else None
        self._watch = LearningWatch(instance.control, flat) if self.is_trainer else None
        if self._lock_file is None:
            return
        self._bounds = RewardBounds(instance.application.reward_range)
        self._clipped = 0
        try:
            with torch.random.fork_rng(devices=[]):
                self._training_mode = self._find_mode()
                self._own = FlatModel(seeded_model(instance.application, 0))
        except BaseException:
            os.close(self._lock_file)
            raise
        self._own.bind(flat.flat)
        self._own.model.train(self._training_mode)
        self._binding = Binding(self._own)
        self._learner = self._build_learner(self._own.model)
        self._good = copied_state(self._learner)

    def _build_learner(self, model: torch.nn.Module) -> Learner:
        instance = self._instance
        return build_learner(model, instance.application.heads, self._config, instance.config.folder)

    def _find_mode(self) -> bool:
        """Whether one observation can be trained on in training mode, or, as with BatchNorm, in evaluation mode only.

        Raises ApplicationError if a step fails in both.
        """
        reasons = []
        for mode in (True, False):
            model = FlatModel(seeded_model(self._instance.application, 0)).model.train(mode)
            try:
                with torch.enable_grad():
                    self._build_learner(model).step(self._one_of_zeros())
            except Exception as error:
                reasons.append(repr(error))
                continue
            if not mode:
                log.warning("coupled training keeps the model in evaluation mode: in training mode %s", reasons[0])
            return mode
        raise ApplicationError(
            f"application {self._instance.application.name}: trainer.enabled is false, and a training step on a single"
            f" observation (of zeros) fails: in training mode {reasons[0]}, in evaluation mode {reasons[1]}"
        )

    def _one_of_zeros(self) -> Batch:
        heads = len(self._instance.application.heads)
        return Batch(
            observations=torch.zeros(1, self._instance.application.inputs, dtype=torch.float32),
            actions=torch.zeros(1, heads, dtype=torch.int64),
            rewards=torch.zeros(1, dtype=torch.float32),
            probabilities=torch.ones(1, dtype=torch.float32),
            sent=torch.ones(1, dtype=torch.bool),
        )

    def train(self, row: np.void) -> None:
        """One step on one completed record. SEND: its actual reward; WAIT: a share of the expected one.

        Whatever goes wrong, weights and learner are afterwards as they were before.
        """
        if self._metrics is None or self._watch is None:
            return
        started = time.perf_counter()
        rows: np.ndarray[Any, Any] = np.array([row])
        self._clip(rows)
        rewards = np.where(
            rows["decision"] == SEND, rows["actual_reward"], WAIT_MULTIPLIER * rows["expected_reward"]
        ).astype(np.float32)
        kept = self._flat.flat.clone()
        try:
            result = self._step(make_batch(rows, rewards, _CPU, self._instance.records))
            fault = self._find_fault(result, kept)
        except BaseException:
            self._watch.failed()
            self._go_back(kept)
            raise
        if fault:
            self._go_back(kept)
            self._metrics.count("refused")
            self._watch.refused(result.loss)
            log.error("version %d: the step was refused: %s", self._publisher.version, fault)
            return
        version = self._publisher.version + 1
        self._publisher.publish(self._flat.flat, version)
        self._good = copied_state(self._learner)
        self._metrics.record(history_row(version, rows, rewards, result, (time.perf_counter() - started) * 1e3))
        self._watch.trained(result.loss, kept)

    def beat(self) -> None:
        """Take in what became of the decisions since the last call."""
        if self._watch is not None:
            self._watch.tick()

    def _clip(self, rows: np.ndarray[Any, Any]) -> None:
        self._bounds.clip(rows, self._instance.application.build_gate is not None)
        if self._bounds.outliers != self._clipped:
            self._instance.control.add("metrics.clipped_rewards", self._bounds.outliers - self._clipped)
            self._clipped = self._bounds.outliers

    def _step(self, batch: Batch) -> StepResult:
        if self._own.flat is not self._flat.flat:
            # The engine took a version of somebody else's, into other memory.
            self._own.bind(self._flat.flat)
        self._binding.restore()
        if hasattr(self._learner, "experiences"):
            control = self._instance.control
            self._learner.experiences = sum(control.get(f"lane.{lane}.head") for lane in range(control.get("lanes")))
        observe = getattr(self._learner, "observe", None)
        if observe is not None:
            observe(batch)
        with torch.enable_grad():
            result = self._learner.step(batch)
        self._binding.restore()
        return result

    def _find_fault(self, result: StepResult, kept: torch.Tensor) -> str | None:
        if not math.isfinite(result.loss) or not math.isfinite(result.gradient_norm):
            return f"its loss is {result.loss}, its gradient's norm {result.gradient_norm}"
        name = became_not_finite(self._own.state(), self._own.layout.views(kept))
        name = name or became_not_finite(self._learner.state(), self._good)
        return None if name is None else f"{name} has a value that is not finite"

    def _go_back(self, kept: torch.Tensor) -> None:
        self._binding.restore()
        self._flat.flat.copy_(kept)
        self._own.model.zero_grad(set_to_none=True)
        self._learner = self._build_learner(self._own.model)
        if self._good:
            self._learner.load_state({name: tensor.clone() for name, tensor in self._good.items()})

    def reset(self) -> None:
        """New random weights under a new version."""
        if not self.is_trainer:
            return
        fresh = FlatModel(seeded_model(self._instance.application, self._config.seed))
        self._flat.flat.copy_(fresh.flat)
        self._learner = self._build_learner(self._own.model)
        self._good = copied_state(self._learner)
        control = self._instance.control
        control.add("generation")
        version = self._publisher.version + 1
        control.set("first_version", version)
        self._publisher.publish(self._flat.flat, version)
