"""Tandem with the packages of its core alone: torch, numpy, pyyaml, psutil and safetensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tandem.supervisor.display import status

Wait = Callable[..., Any]

SITE = """
import sys
EXTRA = {"msgspec", "starlette", "uvicorn", "websockets", "anyio", "h11", "httpx", "rich", "prometheus_client",
         "tensorboardX", "google", "sniffio", "idna", "click", "pytest", "hypothesis"}
from importlib.machinery import PathFinder
class Core(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in EXTRA else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Core
"""
"""A `sitecustomize` module: every process that is started finds the core's packages and no others."""

APPLICATION = """
import torch
from tandem import ActionHead, Application
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)
    def forward(self, observations):
        return (self.layer(observations),)
def create(settings, folder):
    return Application("shop", ("basket", "hour"), (ActionHead("offer", 3),), Model)
"""

SERVER = """
import itertools, random, time
from tandem import open_engine
engine = open_engine()
engine.mark_ready()
chance = random.Random(1)
for number in itertools.count():
    decision = engine.decide(f"visit {number % 50}", [chance.random(), chance.random()])
    engine.reward(f"visit {number % 50}", float(decision.action[0] == 1))
    if number % 20 == 0:
        engine.beat()
        time.sleep(0.02)
"""


class Core:
    """Commands in an environment without the extras."""

    def __init__(self, folder: Path, instance: str) -> None:
        self.folder = folder
        self.instance = instance
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(SITE, encoding="utf-8")
        self.environment = {**os.environ, "PYTHONPATH": str(site), "TANDEM_INSTANCE": instance}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def configure(self, command: str) -> None:
        config = {
            "application": "shop",
            "trainer": {"training_interval": 0.05, "min_batch_size": 1, "nice": 0},
            "inference": {"command": command, "port": 0},
        }
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


@pytest.fixture
def core(tmp_path: Path, instance_name: str) -> Iterator[Core]:
    """The commands, in a folder with an application; nothing of the instance is left afterwards."""
    made = Core(tmp_path, instance_name)
    (tmp_path / "shop.py").write_text(APPLICATION, encoding="utf-8")
    (tmp_path / "server.py").write_text(SERVER, encoding="utf-8")
    yield made
    made("-m", "tandem.supervisor", "down", "--timeout", "10")


def test_the_extras_are_refused(core: Core) -> None:
    """The environment of these tests has the core only."""
    assert core("-c", "import torch, numpy, yaml, psutil, safetensors").returncode == 0
    for name in ("msgspec", "starlette", "rich"):
        assert "ModuleNotFoundError" in core("-c", f"import {name}").stderr


def test_an_application_learns_with_the_core_alone(core: Core, wait_until: Wait) -> None:
    """`tandem up` with a server of the user's own: it decides, the trainer trains, and the rewarded choice wins."""
    core.configure(f"{sys.executable} server.py")
    started = core("-m", "tandem.supervisor", "up", "-d", "--config", "config.yaml")
    assert started.returncode == 0, started.stderr
    wait_until(lambda: status.status(core.instance)["model_version"] > 60, "it trains", 60)
    code = (
        "from tandem import Engine; import json; e = Engine.attach(); "
        "print(json.dumps([e.decide(f'look {n}', [0.5, 0.5]).action[0] for n in range(200)])); e.close()"
    )
    core("-m", "tandem.supervisor", "restart", "trainer")
    looked = core("-c", code)
    assert looked.returncode == 0, looked.stderr
    chosen = json.loads(looked.stdout)
    assert chosen.count(1) > 100, chosen
    assert core("-m", "tandem.supervisor", "status", "--json").returncode == 0


@pytest.mark.parametrize(
    ("words", "status_of"),
    [
        (("-c", "from tandem import Service"), 1),
        (("-m", "tandem.inference_proc"), 1),
        (("-m", "tandem.supervisor", "up", "-d", "--config", "config.yaml"), 1),
        (("-m", "tandem.supervisor", "demo", "--seconds", "1"), 1),
    ],
)
def test_who_lacks_the_server_is_told_its_name(core: Core, words: tuple[str, ...], status_of: int) -> None:
    """One line says which extra is missing and how it is installed."""
    core.configure("")
    done = core(*words)
    assert done.returncode == status_of, done.stderr
    assert "needs the extra `server`" in done.stderr
    assert "pip install 'tandem-learning[server]'" in done.stderr
    if words[0] == "-m":
        assert "Traceback" not in done.stderr
