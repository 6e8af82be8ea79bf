"""Which checkpoints are saved, spared, resumed from and rolled back to."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch

from ..shared.configuration.config import ContinuousTrainingConfig
from ..shared.durable import set_aside
from ..shared.errors import CheckpointError, SpoiltCheckpoint
from ..shared.memory.control import Control
from ..shared.weights.checkpoints import Checkpoint, CheckpointStore
from .guards.reward_guard import Score

log = logging.getLogger(__name__)

_METRICS = ("average_loss", "mean_reward", "entropy", "total_steps")


class CheckpointPolicy:
    """Saves with the score of the moment; spares the newest, the best, and the one that the guard compares with.

    A checkpoint's manifest says in `restored` which other one it is a copy of (0: none): after a rollback or a reset
    the weights in force are saved at once, so that a restart of the machine does not bring back what was left behind.
    """

    def __init__(self, store: CheckpointStore, control: Control, config: ContinuousTrainingConfig) -> None:
        self.store = store
        self.control = control
        self.config = config
        self.saved_version = -1

    def save(
        self,
        version: int,
        model: Mapping[str, torch.Tensor],
        optimiser: Mapping[str, torch.Tensor],
        details: Mapping[str, Any],
        score: Score | None = None,
        restored: int = 0,
        spare: int = 0,
    ) -> bool:
        """Save a checkpoint, unless this version is saved already; False, logged and counted, if the disk refuses."""
        if version == self.saved_version:
            return True
        metrics = {name: self.control.get(f"metrics.{name}") for name in _METRICS}
        if score is not None:
            metrics.update(live_score=score.mean, live_reward=score.reward)
        manifest = {
            "config": self.config.to_dict(),
            "metrics": {name: value if value == value else None for name, value in metrics.items()},
            "generation": self.control.get("generation"),
            "restored": restored,
            "score": None if score is None else _plain(score),
            **details,
        }
        try:
            self.store.save(version, model, optimiser, manifest)
        except (CheckpointError, OSError) as error:
            log.error("version %d: no checkpoint: %s", version, error)
            self.control.add("trainer.unsaved")
            return False
        self.saved_version = version
        self.control.set("trainer.unsaved", 0)
        log.info("version %d: checkpoint saved", version)
        try:
            self.store.prune(self.config.checkpoints_kept, self._best_versions() | {spare})
        except OSError as error:
            log.error("version %d: older checkpoints cannot be removed: %s", version, error)
        return True

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that can be used."""
        return next(filter(self.is_sound, reversed(self.store.all())), None)

    def is_sound(self, checkpoint: Checkpoint) -> bool:
        """True if it can be used; otherwise it is logged, and set aside by name if it holds what is not finite.

        Such a one would be the newest for as long as no version is higher, and good ones be pruned in its place.
        """
        try:
            checkpoint.check()
        except SpoiltCheckpoint as error:
            set_aside(checkpoint.folder, "not-finite", str(error))
            return False
        except CheckpointError as error:
            log.error("%s; an older checkpoint is tried", error)
            return False
        return True

    def find(self, version: int) -> Checkpoint | None:
        """The checkpoint of this version."""
        return next((checkpoint for checkpoint in self.store.all() if checkpoint.version == version), None)

    def best(self) -> Checkpoint | None:
        """The sound checkpoint of this generation whose decisions scored best; an unsure score counts less."""
        return next(filter(self.is_sound, self._ranked()), None)

    def previous(self, version: int) -> Checkpoint | None:
        """The newest sound checkpoint before the weights in force, whose version is `version`.

        Going back twice goes back twice as far: the copy that the first rollback saved does not count.
        """
        own = [checkpoint for checkpoint in self.store.all() if checkpoint.version <= version]
        if own and own[-1].manifest.get("restored"):
            restored = int(own.pop().manifest["restored"])
            own = [checkpoint for checkpoint in own if checkpoint.version < restored]
        elif own and own[-1].version == version:
            own.pop()
        for checkpoint in reversed(own):
            source = self.find(int(checkpoint.manifest.get("restored") or 0)) or checkpoint
            if self.is_sound(source):
                return source
        return None

    def _best_versions(self) -> set[int]:
        return {checkpoint.version for checkpoint in self._ranked()[: self.config.best_checkpoints_kept]}

    def _ranked(self) -> list[Checkpoint]:
        generation = self.control.get("generation")
        scored = []
        for checkpoint in self.store.all():
            score = score_of(checkpoint)
            if score is not None and checkpoint.manifest.get("generation") == generation:
                scored.append((score.mean - score.error, checkpoint.version, checkpoint))
        return [checkpoint for *_, checkpoint in sorted(scored, key=lambda item: item[:2], reverse=True)]


def score_of(checkpoint: Checkpoint) -> Score | None:
    """The score of the decisions in a manifest, None without a usable one."""
    plain = checkpoint.manifest.get("score")
    try:
        return None if plain is None else Score(**{**plain, "reward": float(plain["reward"] or 0.0)})
    except (TypeError, KeyError, ValueError):
        return None


def _plain(score: Score) -> dict[str, float | None]:
    # JSON has no NaN: a window without a single SEND has no mean actual reward.
    return {name: value if value == value else None for name, value in dataclasses.asdict(score).items()}
