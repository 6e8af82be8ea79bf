"""Coupled training: without a trainer process the server trains on each experience as it comes (`enabled: false`).

One experience per step, inside the decision that completed it, as servers did before there was a trainer
(requirement 9.3). Only one server process trains: the holder of the trainer's flock.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
import torch

from ..shared.instance import Instance, seeded_model
from ..shared.learning import Learner, history_row, load_learner, make_batch
from ..shared.metrics import TrainingMetrics
from ..shared.records import SEND
from ..shared.weights import FlatModel, Publisher, Slots, claim_trainer

WAIT_MULTIPLIER = 0.3
"""A blocked decision is trained at once with this share of its expected reward (requirement 9.3)."""

_CPU = torch.device("cpu")


class CoupledTrainer:
    """Trains the engine's own model, one record at a time, and publishes each step like a trainer would."""

    def __init__(self, instance: Instance, flat: FlatModel, slots: Slots) -> None:
        self._instance = instance
        self._flat = flat
        self._config = dataclasses.replace(instance.config.trainer, batch_size=1, min_batch_size=1)
        self._lock_file = claim_trainer(instance.name)
        self._publisher = Publisher(slots)
        self.is_trainer = self._lock_file is not None
        self._learner = self._build_learner()
        self._metrics = TrainingMetrics(instance.control) if self.is_trainer else None

    def _build_learner(self) -> Learner:
        learner: Learner = load_learner(self._config.learner)(
            self._flat.model, self._instance.application.heads, self._config
        )
        return learner

    def train(self, row: np.void) -> None:
        """One step on one completed record. SEND: its actual reward; WAIT: a share of the expected one."""
        if self._metrics is None:
            return
        started = time.perf_counter()
        rows: np.ndarray[Any, Any] = np.array([row])
        sent = row["decision"] == SEND
        reward = float(row["actual_reward"]) if sent else WAIT_MULTIPLIER * float(row["expected_reward"])
        rewards = np.array([reward], dtype=np.float32)
        kept = self._flat.flat.clone()
        self._flat.model.train()
        try:
            result = self._learner.step(make_batch(rows, rewards, _CPU))
        finally:
            self._flat.model.eval()
        if not math.isfinite(result.loss) or not math.isfinite(result.gradient_norm):
            self._flat.flat.copy_(kept)
            self._learner = self._build_learner()
            self._metrics.count("refused")
            return
        version = self._publisher.version + 1
        self._publisher.publish(self._flat.flat, version)
        self._metrics.record(history_row(version, rows, rewards, result, (time.perf_counter() - started) * 1e3))

    def reset(self) -> None:
        """New random weights under a new version."""
        if not self.is_trainer:
            return
        fresh = FlatModel(seeded_model(self._instance.application, self._config.seed))
        self._flat.flat.copy_(fresh.flat)
        self._learner = self._build_learner()
        control = self._instance.control
        control.add("generation")
        version = self._publisher.version + 1
        control.set("first_version", version)
        self._publisher.publish(self._flat.flat, version)
