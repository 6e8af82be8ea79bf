"""A replay trains a policy that is better than what was logged, and the same one each time."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tandem.evaluation.log.folder import LogSchema, write_segment
from tandem.offline.replay import replay
from tandem.shared.application import ActionHead, Application
from tandem.shared.configuration.config import Config, parse
from tandem.shared.errors import ApplicationError, TandemError
from tandem.shared.instance import seeded_model
from tandem.shared.memory.segments import FOLDER, PREFIX
from tandem.shared.weights.flat_model import FlatModel

LIGHTS = Application("lights", ("east", "north"), (ActionHead("light", 3),))
SOURCE = """
from tandem import ActionHead, Application

def create(settings, folder):
    return Application("lights", ("east", "north"), (ActionHead("light", {choices}),))
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """A configuration of the lights."""
    name = f"lights_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(SOURCE.format(choices=3), encoding="utf-8")
    yield parse({"application": name, "trainer": {"buffer_capacity": 4000}}, "a test", str(tmp_path))
    sys.modules.pop(name, None)
    left = [entry for entry in os.listdir(FOLDER) if entry.startswith(f"{PREFIX}replay-{os.getpid()}-")]
    assert left == []


def log_of(folder: Path, count: int) -> None:
    """Decisions drawn evenly from three lights; the right one is how many of the two numbers are positive."""
    rng = np.random.default_rng(3)
    schema = LogSchema.of(LIGHTS)
    rows = np.zeros(count, schema.layout.record)
    rows["ticket"] = np.arange(1, count + 1)
    rows["timestamp"] = 1e9 + np.arange(count)
    rows["observation"] = rng.normal(size=(count, 2))
    rows["action"][:, 0] = rng.integers(3, size=count)
    rows["decision"] = 1
    rows["probability"] = rows["confidence"] = 1 / 3
    rows["allowed"] = 7
    rows["actual_reward"] = rows["action"][:, 0] == (rows["observation"] > 0).sum(axis=1)
    for part, name in enumerate(("a", "b")):
        write_segment(folder, schema, rows[part::2], name)


def choices_of(checkpoint: Path, observations: Any) -> Any:
    """The likeliest choice of a checkpoint's model for each observation."""
    flat = FlatModel(seeded_model(LIGHTS, 0))
    stored = load_file(str(next(checkpoint.glob("model*.safetensors"))))
    for name, tensor in flat.state().items():
        tensor.copy_(stored[name])
    with torch.no_grad():
        return flat.model.eval()(torch.from_numpy(observations))[0].argmax(dim=1).numpy()


def test_a_replay_learns_and_is_the_same_again(tmp_path: Path, config: Config) -> None:
    """A random log of 3,000 decisions makes a policy that is nearly always right, to the last bit the same twice."""
    log_of(tmp_path / "log", 3000)
    told: list[tuple[int, int]] = []
    first = replay(tmp_path / "log", config, tmp_path / "first", 5, lambda *seen: told.append(seen))
    second = replay(tmp_path / "log", config, tmp_path / "second", 5)
    other = replay(tmp_path / "log", config, tmp_path / "other", 6)
    assert first.decisions == 3000
    assert first.version == second.version > 300
    assert told[-1] == (3000, 3000)
    files = [sorted(path.name for path in made.checkpoint.glob("*.safetensors")) for made in (first, second)]
    assert files[0] == files[1]
    assert files[0]
    same = [[(made.checkpoint / name).read_bytes() for name in files[0]] for made in (first, second, other)]
    assert same[0] == same[1]
    assert same[0] != same[2]
    observations = np.random.default_rng(9).normal(size=(1000, 2)).astype(np.float32)
    right = choices_of(first.checkpoint, observations) == (observations > 0).sum(axis=1)
    assert right.mean() > 0.85


def test_what_cannot_be_replayed_is_named(tmp_path: Path, config: Config) -> None:
    """Too few decisions, another application, a target that is there: nothing is left of the attempt."""
    log_of(tmp_path / "few", 4)
    with pytest.raises(TandemError, match="nothing was trained on 4 decisions"):
        replay(tmp_path / "few", config, tmp_path / "made")
    with pytest.raises(TandemError, match="is there already"):
        replay(tmp_path / "few", config, tmp_path / "few")
    (tmp_path / "other_lights.py").write_text(SOURCE.format(choices=2), encoding="utf-8")
    other = parse({"application": "other_lights"}, "a test", str(tmp_path))
    with pytest.raises(ApplicationError, match="the log is of 'lights'"):
        replay(tmp_path / "few", other, tmp_path / "made")
    assert not (tmp_path / "made").exists()
