"""Fixtures that several folders of tests share: instance names that clean up, and a toy application."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KIT = str(Path(__file__).parent / "kit")
"""Helpers that child processes import too."""
if KIT not in sys.path:
    sys.path.append(KIT)

TOY_SOURCE = '''
"""A toy application: five places and two kinds; the model is one linear layer."""
import torch
from tandem.shared.application import ActionHead, Application


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 7)

    def forward(self, observations):
        logits = self.layer(observations)
        return logits[:, :5], logits[:, 5:]


def create(settings, folder):
    return Application(
        name="toy",
        features=tuple("abcd"),
        heads=(ActionHead("spawn_chunk", 5), ActionHead("spawn_type", 2)),
        build_model=Linear,
    )
'''


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Wait for `condition` to become true and return its value; fails naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    pytest.fail(f"{what}: not within {timeout:g} s")


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., Any]:
    """`wait_until(condition, what, timeout)`: waits for a condition with a deadline."""
    return wait_until


@pytest.fixture
def instance_name() -> Iterator[str]:
    """A name that nobody else uses. Every segment of it, and of names that begin with it, goes after the test."""
    from tandem.shared.memory.segments import FOLDER, PREFIX

    name = f"test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    yield name
    folder = Path(FOLDER)
    for path in folder.glob(f"{PREFIX}{name}*"):
        path.unlink(missing_ok=True)
    left = [path.name for path in folder.iterdir() if name in path.name]
    assert not left, f"left in {FOLDER}: {left}"


@pytest.fixture
def toy_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The module name of a toy application, importable here and in child processes."""
    name = f"toy_{uuid.uuid4().hex[:8]}"
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / f"{name}.py").write_text(TOY_SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), inherited))))
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def toy_instance(instance_name: str, toy_application: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`toy_instance(trainer={...}, inference={...}, ...)` creates a real instance of the toy and attaches to it.

    Sections given are merged into a configuration with a short training interval and a fixed seed.
    """
    from tandem.shared.configuration.config import parse
    from tandem.shared.instance import Instance, create_instance

    made: list[Instance] = []

    def make(**sections: Any) -> Instance:
        plain: dict[str, Any] = {
            "application": toy_application,
            "data_dir": str(tmp_path / "data"),
            "trainer": {"training_interval": 0.01, "buffer_capacity": 256, "seed": 1, "nice": 0},
            "inference": {"lanes": 2, "seed": 1},
        }
        for section, values in sections.items():
            plain[section] = {**plain.get(section, {}), **values} if isinstance(values, dict) else values
        create_instance(instance_name, parse(plain, "the test's configuration"))
        made.append(Instance(instance_name))
        return made[-1]

    yield make
    for instance in made:
        instance.control.close()


@pytest.fixture
def channel(instance_name: str) -> Iterator[Callable[..., Any]]:
    """`channel(capacity=..., ...)` creates a channel without an application, see `channel_kit.make_channel`."""
    from channel_kit import make_channel

    made = []

    def make(**settings: Any) -> Any:
        made.append(make_channel(instance_name, **settings))
        return made[-1]

    yield make
    for item in made:
        item.control.close()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`start_server(gate={...}, limits={...}, ...)` starts a server of the test's own (`server_kit.RunningServer`)."""
    from server_kit import RunningServer

    running: list[Any] = []

    def start(**options: Any) -> Any:
        running.append(RunningServer(tmp_path, **options))
        return running[-1]

    yield start
    for item in running:
        item.close()
