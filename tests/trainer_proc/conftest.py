"""What the trainer's tests need: experiences of the toy, and real trainer processes that do not outlive the test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tandem.shared.experiences.experience import Experience
from tandem.shared.replay import ExperienceReplayBuffer
from tandem.trainer_proc.trainer import ContinuousTrainer

# With more threads than idle cores every small tensor operation waits for the slowest.
torch.set_num_threads(1)


def toy_experience(rng: np.random.Generator, chunk: int, reward: float, **changes: Any) -> Experience:
    """A completed SEND of the toy; `changes` replace fields."""
    fields: dict[str, Any] = {
        "observation": rng.random(4, dtype=np.float32),
        "spawn_chunk": chunk,
        "spawn_type": int(rng.integers(2)),
        "nn_confidence": 0.2,
        "gate_decision": "SEND",
        "expected_reward": reward,
        "actual_reward": reward,
        "probability": 0.1,
    }
    return Experience(**{**fields, **changes})


@pytest.fixture
def fill() -> Callable[..., None]:
    """`fill(buffer, count, seed, good, **changes)`: adds experiences in which chunk `good` earns 1 and others -1."""

    def add(buffer: ExperienceReplayBuffer, count: int = 64, seed: int = 0, good: int = 2, **changes: Any) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(count):
            chunk = int(rng.integers(5))
            buffer.add(toy_experience(rng, chunk, 1.0 if chunk == good else -1.0, **changes))

    return add


@pytest.fixture
def toy_trainer(toy_instance: Callable[..., Any]) -> Iterator[Callable[..., ContinuousTrainer]]:
    """`toy_trainer(**trainer settings)`: a ContinuousTrainer on a new toy instance, stopped after the test."""
    made: list[ContinuousTrainer] = []

    def make(**settings: Any) -> ContinuousTrainer:
        instance = toy_instance(trainer=settings)
        made.append(ContinuousTrainer(instance.build_model(), ExperienceReplayBuffer(instance, seed=1)))
        return made[-1]

    yield make
    for trainer in made:
        assert trainer.stop()
        trainer.buffer.close()


@pytest.fixture
def trainer_process(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """`trainer_process(instance)` starts a real trainer process; killed after the test if it still runs."""
    started: list[subprocess.Popen[bytes]] = []

    def start(instance: str) -> subprocess.Popen[bytes]:
        with open(tmp_path / f"trainer{len(started) + 1}.log", "wb") as log:
            command = [sys.executable, "-m", "tandem.trainer_proc", "--instance", instance]
            started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
