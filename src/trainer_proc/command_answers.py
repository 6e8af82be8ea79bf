"""The answering end of operator commands: looks for a new one and carries it out between two training steps.

src/shared/commands.py is the asking end. A command that raises is answered `failed`: the trainer goes on.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Protocol

from ..shared.commands import BEST, PREVIOUS
from ..shared.configuration.config import Config, ContinuousTrainingConfig, read_reloaded
from ..shared.errors import CheckpointError, ConfigError, SpoiltCheckpoint
from ..shared.instance import Instance
from ..shared.memory import layout
from ..shared.memory.control import Control
from ..shared.weights.checkpoints import Checkpoint
from .checkpoint_policy import CheckpointPolicy

log = logging.getLogger(__name__)


class Commanded(Protocol):
    """What the commands act on: a trainer."""

    checkpoints: CheckpointPolicy

    @property
    def instance(self) -> Instance:
        """The instance that is trained."""

    @property
    def control(self) -> Control:
        """Its control segment."""

    @property
    def model_version(self) -> int:
        """The newest published version."""

    def checkpoint(self) -> bool:
        """Save what is new; False if the disk refused."""

    def roll_back(self, checkpoint: Checkpoint, reason: str) -> int:
        """Publish a checkpoint's weights; the new version."""

    def reset(self) -> int:
        """Publish fresh weights; the new version."""

    def configure(self, config: ContinuousTrainingConfig) -> None:
        """Take over the settings that are reloadable."""


class Commands:
    """The commands of one trainer. Any command still unanswered when it starts is carried out then."""

    def __init__(self, trainer: Commanded) -> None:
        self._trainer = trainer
        self._control = trainer.control

    def poll(self) -> None:
        """Carry out the newest command, if there is one that is not answered yet."""
        sequence = self._control.get("command.sequence")
        if sequence == self._control.get("trainer.answered"):
            return
        code = self._control.get("command.code")
        name = layout.COMMANDS[code] if code < len(layout.COMMANDS) else "none"
        try:
            status, version = self._carry_out(name, self._control.get("command.argument"))
        except Exception:
            log.exception("version %d: the command %s failed", self._trainer.model_version, name)
            status, version = "failed", 0
        self._control.set("trainer.answer", layout.ANSWERS.index(status))
        self._control.set("trainer.answer_version", version)
        self._control.set("trainer.answered", sequence)

    def _carry_out(self, name: str, argument: int) -> tuple[str, int]:
        trainer = self._trainer
        if name == "checkpoint":
            return ("done", trainer.model_version) if trainer.checkpoint() else ("failed", 0)
        if name == "rollback":
            return self._roll_back(argument)
        if name == "reset":
            return "done", trainer.reset()
        if name == "reload":
            return self._reload()
        return "refused", 0

    def _roll_back(self, argument: int) -> tuple[str, int]:
        checkpoints = self._trainer.checkpoints
        if argument == PREVIOUS:
            checkpoint = checkpoints.previous(self._trainer.model_version)
        elif argument == BEST:
            checkpoint = checkpoints.best()
        else:
            checkpoint = checkpoints.find(argument)
        if checkpoint is None:
            log.error("version %d: there is no such checkpoint to roll back to", self._trainer.model_version)
            return "missing", 0
        try:
            return "done", self._trainer.roll_back(checkpoint, "asked for")
        except CheckpointError as error:
            log.error("version %d: no rollback: %s", self._trainer.model_version, error)
            if isinstance(error, SpoiltCheckpoint):
                checkpoints.is_sound(checkpoint)
            return "unreadable", 0

    def _reload(self) -> tuple[str, int]:
        instance = self._trainer.instance
        try:
            config = read_reloaded(instance.data_dir, instance.config.folder)
        except (OSError, ValueError, ConfigError) as error:
            log.error("version %d: nothing is reloaded: %s", self._trainer.model_version, error)
            return "invalid", 0
        self._trainer.configure(config.trainer)
        self._control.add("trainer.config_revision")
        _warn_of_others(instance.config, config)
        return "done", 0


def _warn_of_others(old: Config, new: Config) -> None:
    changed = [
        field.name
        for field in dataclasses.fields(new.trainer)
        if not field.metadata["reloadable"] and getattr(old.trainer, field.name) != getattr(new.trainer, field.name)
    ]
    if changed:
        log.warning("changed, but only a restart of the instance takes them over: trainer.%s", ", ".join(changed))
