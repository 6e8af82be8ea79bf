"""The trainer process: `python -m tandem.trainer_proc --instance NAME`."""

from __future__ import annotations

from ..shared.memory.processes import leave_working_folder

if __name__ == "__main__":
    leave_working_folder()  # before anything else is imported

import argparse
import logging
import os
import signal
import sys

import torch

from ..shared.application import ActionHead
from ..shared.decision_log.writer import logged
from ..shared.errors import TandemError
from ..shared.instance import Instance, seeded_model
from ..shared.learning import Batch, build_learner
from ..shared.logs import configure_logging
from ..shared.memory.ownership import be_private
from ..shared.memory.segments import instance_name
from ..shared.replay import ExperienceReplayBuffer
from ..shared.weights.publisher import claim_trainer
from .devices import fit_threads, make_deterministic, yield_to_server
from .tensorboard import event_files
from .trainer import ContinuousTrainer

log = logging.getLogger(__name__)


def warm_up(trainer: ContinuousTrainer) -> None:
    """Run one step on a model of its own: the first step of a process imports and allocates for about 100 ms.

    A step that fails on zeros says nothing about real observations: it is logged, and training begins all the same.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            _step_on_zeros(trainer)
    except Exception:
        log.warning("the first step, on an observation of zeros, failed", exc_info=True)


def _step_on_zeros(trainer: ContinuousTrainer) -> None:
    model = seeded_model(trainer.instance.application, 0).to(trainer.device)
    heads: tuple[ActionHead, ...] = trainer.instance.application.heads
    learner = build_learner(model, heads, trainer.config, trainer.instance.config.folder)
    rows, device = trainer.config.batch_size, trainer.device
    learner.step(
        Batch(
            observations=torch.zeros(rows, trainer.instance.application.inputs, dtype=torch.float32, device=device),
            actions=torch.zeros(rows, len(heads), dtype=torch.int64, device=device),
            rewards=torch.zeros(rows, dtype=torch.float32, device=device),
            probabilities=torch.ones(rows, dtype=torch.float32, device=device),
            sent=torch.ones(rows, dtype=torch.bool, device=device),
        )
    )


def take_trainer_lock(instance: str) -> int:
    """Hold the flock of the only trainer; raises TandemError if another trainer lives."""
    descriptor = claim_trainer(instance)
    if descriptor is None:
        raise TandemError(f"instance {instance!r} has a trainer already")
    return descriptor


def main(arguments: list[str] | None = None) -> int:
    """Train until SIGTERM or SIGINT: 0, or 1 with one message on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tandem.trainer_proc", description="The trainer process.")
    parser.add_argument("--instance", default=instance_name())
    options = parser.parse_args(arguments)
    stop_asked = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop_asked.append(True))
    instance = None
    try:
        instance = Instance(options.instance, timeout=30.0)
        configure_logging(instance.config.logging)
        be_private(instance.config.supervisor.mode)
        config = instance.config.trainer
        yield_to_server(config)
        if config.deterministic:
            make_deterministic()
        take_trainer_lock(instance.name)
        seed = None if config.seed < 0 else config.seed
        buffer = ExperienceReplayBuffer(instance, seed=seed)
        trainer = ContinuousTrainer(instance.build_model(), buffer)
        fit_threads(config, trainer.flat.layout.data_bytes)
        warm_up(trainer)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: trainer.request_stop())
        if stop_asked:
            return 0
        instance.control.set("trainer.ready", os.getpid())
        log.info(
            "version %d: training every %g s on %s", trainer.model_version, config.training_interval, trainer.device
        )
        with event_files(instance), logged(instance) as trainer.loop.beside:
            trainer.run()
    except TandemError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    finally:
        if instance is not None and instance.control.get("trainer.ready") == os.getpid():
            instance.control.set("trainer.ready", 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
