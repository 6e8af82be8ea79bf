"""A trainer process for latency.py: `python benchmarks/_trainer.py --instance NAME --mode back_to_back --cores 1`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys

import torch
from tandem.shared.configuration.config import ContinuousTrainingConfig
from tandem.shared.instance import Instance
from tandem.shared.logs import configure_logging
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.trainer_proc.__main__ import take_trainer_lock, warm_up
from tandem.trainer_proc.trainer import ContinuousTrainer

MODES = ("every_second", "back_to_back", "back_to_back_unpublished", "paced", "paced_unpublished")


def config_of(mode: str, config: ContinuousTrainingConfig) -> ContinuousTrainingConfig:
    """One step every second, one directly after the other, or, `paced`, as the settings say."""
    if mode.startswith("paced"):
        return config
    if mode == "every_second":
        return dataclasses.replace(config, training_interval=1.0, steps_per_interval=1)
    return dataclasses.replace(config, training_interval=0.05, steps_per_interval=1_000_000)


class Private:
    """Weights slots in this process's own memory: the same work as publishing, and nobody sees it."""

    count = 1

    def __init__(self, flat: torch.Tensor, version: int) -> None:
        self.data = [flat.clone()]
        self.version = version

    def find(self, version: int) -> int:
        """Where the version lies, -1 if it is not there."""
        return 0 if version == self.version else -1

    def publish(self, flat: torch.Tensor, version: int, drawn_ns: int = 0) -> None:
        """Copy, as into a slot."""
        self.data[0].copy_(flat)
        self.version = version


def main() -> int:
    """Train until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--cores", required=True, help="cores to train on, such as 1 or 1,2")
    parser.add_argument("--nice", type=int, default=5)
    options = parser.parse_args()
    cores = {int(core) for core in options.cores.split(",")}
    os.nice(options.nice)
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
    instance = Instance(options.instance)
    configure_logging(instance.config.logging)
    take_trainer_lock(instance.name)
    config = config_of(options.mode, instance.config.trainer)
    trainer = ContinuousTrainer(instance.build_model(), ExperienceReplayBuffer(instance), config)
    if options.mode.endswith("unpublished"):
        private = Private(trainer.flat.flat, trainer.model_version)
        trainer.candidate.publisher = private  # type: ignore[assignment]
        trainer.candidate.slots = private  # type: ignore[assignment]
    warm_up(trainer)
    signal.signal(signal.SIGTERM, lambda *_: trainer.request_stop())
    instance.control.set("trainer.ready", os.getpid())
    trainer.run()
    instance.control.set("trainer.ready", 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
