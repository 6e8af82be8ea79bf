"""Every record names the version of the weights that made the decision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from proof import figure, size
from tandem.inference_proc.engine import Engine
from tandem.shared.configuration.config import parse
from tandem.shared.instance import Instance, create_instance

SOURCE = '''
"""An application whose policy says which version it is: the chance of choice 1 follows from the weights."""
import torch
from tandem.shared.application import ActionHead, Application


class Telling(torch.nn.Module):
    def __init__(self, padding):
        super().__init__()
        self.told = torch.nn.Parameter(torch.zeros(64))
        self.padding = torch.nn.Parameter(torch.zeros(padding))

    def forward(self, observations):
        told = self.told.mean() + 0 * self.padding.sum()
        return (torch.stack([torch.zeros(len(observations)), told.expand(len(observations))], dim=1),)


def create(settings, folder):
    return Application(
        name="telling", features=("a",), heads=(ActionHead("choice", 2),),
        build_model=lambda: Telling(settings.get("padding", 0)),
    )
'''


@pytest.fixture
def telling(instance_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
    """Creates an instance of the telling application; its name."""
    module = f"telling_{instance_name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(padding: int) -> str:
        plain = {
            "application": module,
            "data_dir": str(tmp_path),
            "settings": {"padding": padding},
            "trainer": {"buffer_capacity": 4096, "learner": "policy_gradient"},
            "inference": {"lanes": 1, "seed": 1, "pending_capacity": 64},
        }
        create_instance(instance_name, parse(plain, "the test"))
        return instance_name

    return make


def logit(version: int) -> float:
    return (version % 997) / 400


def mismatches(name: str, nursery: Any, engine: Engine, decisions: int, enough: int = 10**9) -> tuple[int, int, int]:
    """Decide under a stream of versions: records whose probability is not that of the version they name."""
    writer = nursery.start("publish_telling", name=name).ready()
    observation = np.zeros(1, np.float32)
    wrong, versions = 0, set()
    for number in range(decisions):
        if wrong >= enough:
            break
        decision = engine.decide("key", observation)
        engine.reward("key", 0.5)
        chance = 1 / (1 + np.exp(-logit(decision.version)))
        expected = chance if decision.action == (1,) else 1 - chance
        row = engine.lane.ring.record(number + 1)
        versions.add(decision.version)
        wrong += abs(float(row["probability"]) - expected) > 1e-5 or int(row["version"]) != decision.version
    writer.stop()
    return wrong, len(versions), decisions


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("padding", [0, 400_000])
def test_promise_31_records_name_their_version(telling: Callable[[int], str], nursery: Any, padding: int) -> None:
    """Under publishes at a high rate every record's probability is that of the version it names."""
    name = telling(padding)
    engine = Engine(Instance(name))
    wrong, versions, decisions = mismatches(name, nursery, engine, size(400, 100_000))
    engine.close()
    assert wrong == 0
    assert versions > decisions // 20
    figure(31, f"100 % of {decisions:,} records, {versions:,} versions")


def test_naming_the_announced_version_is_not_enough(
    telling: Callable[[int], str], nursery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same cross-check finds an engine that names the newest version instead of the one it used."""
    from tandem.inference_proc.live_model import LiveModel

    name = telling(0)
    engine = Engine(Instance(name))
    announced = property(lambda self: engine.control.get("version"), lambda self, version: None)
    monkeypatch.setattr(LiveModel, "version", announced, raising=False)
    wrong, _, _ = mismatches(name, nursery, engine, 10_000, enough=1)
    engine.close()
    assert wrong > 0


def test_the_probability_follows_from_the_weights() -> None:
    """Two versions that follow each other can be told apart."""
    chances = 1 / (1 + torch.exp(-torch.tensor([logit(version) for version in range(997)])))
    assert float((chances[1:] - chances[:-1]).abs().min()) > 1e-5
