"""Replay: a model is trained on logged decisions, in their order, as the trainer would have been.

The trainer process's own parts train it, on a ring in shared memory of their own that the log is written into chunk by
chunk. How many steps follow each chunk comes from the settings alone, never from a clock, so that with the same log,
settings and seed the weights are the same to the last bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.log.folder import LogSchema, read_log
from ..shared.configuration.config import Config
from ..shared.errors import ApplicationError, TandemError
from ..shared.instance import Instance, create_instance
from ..shared.memory.segments import remove_instance
from ..shared.replay import ExperienceReplayBuffer
from ..shared.weights.publisher import claim_trainer
from ..trainer_proc.devices import one_thread
from ..trainer_proc.trainer import ContinuousTrainer

_BATCH, _LARGE_BATCH = 128, 1024
"""Experiences in a batch while few were read, and later."""
_LATER = 20_000
_CHUNKS = 64, 1024
"""Decisions that are written into the ring before it is trained on again: likewise."""


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What came of a replay: where the checkpoint lies, its version (training steps), and how many decisions it saw."""

    checkpoint: Path
    version: int
    decisions: int


def replay(
    log: Path,
    config: Config,
    target: Path,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> Replayed:
    """Train a fresh model on the log in folder `log` and save it as the checkpoint `target`, which must not exist.

    `progress(done, all)` is told of decisions now and then. Raises EvaluationError for a log that cannot be read,
    ApplicationError if it is of another application than the configuration's, TandemError if nothing could be trained.
    """
    if os.path.lexists(target):
        raise TandemError(f"{target} is there already; choose another name, or remove it")
    schema, records = read_log(log)
    with contextlib.ExitStack() as closing:
        folder = Path(tempfile.mkdtemp(prefix="tandem-replay-"))
        closing.callback(shutil.rmtree, folder, ignore_errors=True)
        trainer, buffer = _open(closing, config, folder, seed, schema)
        closing.enter_context(one_thread())
        _train(trainer, buffer, _as_records(records, buffer.instance), progress)
        if not trainer.model_version:
            raise TandemError(
                f"{log}: nothing was trained on {len(records)} decisions; trainer.min_batch_size is"
                f" {trainer.config.min_batch_size}"
            )
        trainer.checkpoint()
        newest = buffer.instance.checkpoints().newest()
        assert newest is not None
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(newest.folder, target)
        return Replayed(target, trainer.model_version, len(records))


def _open(
    closing: contextlib.ExitStack, config: Config, folder: Path, seed: int, schema: LogSchema
) -> tuple[ContinuousTrainer, ExperienceReplayBuffer]:
    """An instance of its own, and what trains it."""
    name = f"replay-{os.getpid()}-{secrets.token_hex(4)}"
    trainer = dataclasses.replace(config.trainer, seed=seed, device="cpu", live_guard=False)
    inference = dataclasses.replace(config.inference, lanes=1, workers=1, pending_capacity=1024)
    create_instance(name, dataclasses.replace(config, data_dir=str(folder), trainer=trainer, inference=inference))
    closing.callback(remove_instance, name)
    instance = Instance(name)
    closing.callback(instance.control.close)
    ours = LogSchema.of(instance.application)
    if (ours.features, ours.heads) != (schema.features, schema.heads):
        raise ApplicationError(
            f"the log is of {schema.application!r} with {len(schema.features)} features and the heads"
            f" {[head.name for head in schema.heads]}; the configuration's application is {ours.application!r} with"
            f" {len(ours.features)} and {[head.name for head in ours.heads]}"
        )
    held = claim_trainer(name)
    assert held is not None
    closing.callback(os.close, held)
    buffer = ExperienceReplayBuffer(instance, seed=seed)
    closing.callback(buffer.close)
    return ContinuousTrainer(instance.build_model(), buffer), buffer


def _as_records(logged: NDArray[Any], instance: Instance) -> NDArray[Any]:
    """Logged decisions as rows for the ring."""
    rows = np.zeros(len(logged), instance.records.record)
    for name in logged.dtype.names or ():
        if name in (rows.dtype.names or ()) and name not in ("sequence", "checksum", "ticket", "padding"):
            rows[name] = logged[name]
    # Versions of the log's own instance mean nothing here.
    rows["version"] = 0
    return rows


def _train(
    trainer: ContinuousTrainer,
    buffer: ExperienceReplayBuffer,
    rows: NDArray[Any],
    progress: Callable[[int, int], None],
) -> None:
    asked, done, owed = trainer.config, 0, 0.0
    while done < len(rows):
        is_later = done >= _LATER
        chunk, batch = _CHUNKS[is_later], (_LARGE_BATCH if is_later else _BATCH)
        taken = min(chunk, len(rows) - done)
        buffer.add_batch(rows[done : done + taken])
        done += taken
        trainer.config = dataclasses.replace(asked, batch_size=batch)
        owed += asked.update_to_data * taken / batch
        while owed >= 1.0:
            owed -= 1.0
            trainer.train_step()
        progress(done, len(rows))
