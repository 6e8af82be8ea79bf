"""Fixtures of the supervisor's tests: a control segment and small programs to supervise."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tandem.shared.configuration.config import SupervisorConfig
from tandem.shared.memory import ownership
from tandem.shared.memory.control import Control
from tandem.supervisor.children import process_tree
from tandem.supervisor.children.child import Child
from tandem.supervisor.children.logfile import LogFile
from tandem.supervisor.children.probes import TrainerProbe

PRELUDE = """
import os, signal, subprocess, sys, time
from tandem.shared.memory.control import Control
control = Control.attach(os.environ["TANDEM_INSTANCE"])
def beat():
    control.add("trainer.progress")
    control.set("trainer.progress_ns", time.monotonic_ns())
def ready():
    beat()
    control.set("trainer.ready", os.getpid())
def work():
    while True:
        beat()
        time.sleep(0.02)
"""
"""What every program begins with: it plays a trainer that needs no torch."""


@pytest.fixture(autouse=True)
def umask_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands that run in the test's own process change its umask; the next test finds it as it was."""
    for name in ("_before", "_mask"):
        monkeypatch.setattr(ownership, name, getattr(ownership, name))
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.umask(umask)


@pytest.fixture
def control(instance_name: str) -> Iterator[Control]:
    """The complete control segment of an instance with two lanes."""
    made = Control.create(instance_name, {"lanes": 2, "capacity": 10}, {})
    made.finish()
    yield made
    made.close()


@pytest.fixture
def make_child(control: Control, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """`make_child(program, **settings)`: a child that runs the text of a program after PRELUDE, not started yet."""
    made: list[Child] = []

    def make(program: str, **settings: Any) -> Child:
        path = tmp_path / f"program{len(made)}.py"
        path.write_text(PRELUDE + textwrap.dedent(program), encoding="utf-8")
        quick = {"start_timeout": 20.0, "hang_timeout": 1.0, "stop_grace": 0.5, "backoff_first": 0.05, **settings}
        configured = SupervisorConfig(**quick)
        child = Child(
            "trainer",
            [sys.executable, str(path)],
            {**os.environ, "TANDEM_INSTANCE": control.instance},
            LogFile(tmp_path / f"child{len(made)}.log", configured.log_max_bytes, configured.log_files),
            configured,
            TrainerProbe(control),
        )
        made.append(child)
        return child

    yield make
    for child in made:
        if child.pid:
            process_tree.kill(process_tree.members(child.pid, child.ticks))
            child._reap()


@pytest.fixture
def turn_until(wait_until: Callable[..., Any]) -> Callable[..., None]:
    """`turn_until(child, state)`: turn the child until it is in that state."""

    def turn(child: Child, state: str, timeout: float = 20.0) -> None:
        def reached() -> bool:
            child.turn(time.monotonic())
            return child.state == state

        wait_until(reached, f"the child is {state}", timeout)

    return turn
