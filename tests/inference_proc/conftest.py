"""Servers for the tests of the transport and the endpoints, and a toy application for tests of the engine."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KIT = str(Path(__file__).parents[1] / "kit")

REWARDING_SOURCE = '''
"""A toy application: a gate that blocks place 0, and a reward that is the difference of two observations."""
import numpy as np
import torch
from tandem.shared.application import ActionHead, Application, Verdict


class Fixed(torch.nn.Module):
    """Always the place that `wanted` names."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 5)

    def forward(self, observations):
        return (self.layer(observations),)


class Gate:
    components = ("size",)

    def __init__(self):
        self.log = []

    def evaluate(self, observation, action, key, version):
        if observation[0] > 0.9:
            raise RuntimeError("the gate is broken")
        if observation[1] == 0.25:
            return Verdict(False, "unaffordable", float("-inf"), (0.0,))
        return Verdict(observation[1] >= 0, "judged", 0.5, (float(observation[0]),))

    def sent(self, key, action):
        self.log.append(("sent", key, action))

    def failed(self, key, action):
        self.log.append(("failed", key, action))

    def rewarded(self, reward):
        self.log.append(("rewarded", reward))

    def forget(self, key):
        self.log.append(("forget", key))

    def statistics(self):
        return {}

    def clear(self):
        self.log.append(("clear",))


class Reward:
    context_dtype = np.dtype([("before", "<f4")])

    def context(self, observation):
        return np.array((observation[0],), self.context_dtype)

    def reward(self, context, action, executed, observation):
        if observation[0] == 0.75:
            raise RuntimeError("the reward is broken")
        return float(observation[0] - context["before"]), {"difference": float(observation[0] - context["before"])}


def create(settings, folder):
    return Application(
        name="rewarding",
        features=("value", "sign"),
        heads=(ActionHead("place", 5),),
        build_model=Fixed,
        build_gate=Gate,
        build_reward=Reward,
        gate_components=("size",),
        context_dtype=Reward.context_dtype,
    )
'''


@pytest.fixture
def rewarding_application(tmp_path: Path, toy_application: str) -> str:
    """Module name of an application with a gate and a reward calculator, importable in child processes too."""
    name = f"rewarding_{uuid.uuid4().hex[:8]}"
    (tmp_path / "modules" / f"{name}.py").write_text(REWARDING_SOURCE, encoding="utf-8")
    return name


@pytest.fixture
def hostile(tmp_path: Path, toy_application: str, engine_of: Callable[..., Any]) -> Callable[..., Any]:
    """`hostile(gate=True, ...)`: an engine whose application has these parts, and the hooks that say what they do.

    With `enabled=False` training is coupled.
    """
    name = f"hostile_{uuid.uuid4().hex[:8]}"
    source = (Path(KIT) / "hostile_application.py").read_text(encoding="utf-8")
    (tmp_path / "modules" / f"{name}.py").write_text(source, encoding="utf-8")

    def make(enabled: bool = True, **parts: Any) -> tuple[Any, dict[str, Any]]:
        engine = engine_of(application=name, settings=parts, trainer={"lock_timeout": 0.05, "enabled": enabled})
        return engine, sys.modules[name].HOOKS

    return make


@pytest.fixture
def engine_of(toy_instance: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """`engine_of(application=..., trainer={...})`: an engine on a new instance, closed after the test."""
    from tandem.inference_proc.engine import Engine

    made: list[Engine] = []

    def make(**sections: Any) -> Engine:
        made.append(Engine(toy_instance(**sections)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of the Queen that the tests of one module share; its gate lets everything through that can be paid."""
    from server_kit import RunningServer

    running = RunningServer(tmp_path_factory.mktemp("server"), gate={"reward_threshold": -100.0})
    yield running
    running.close()
