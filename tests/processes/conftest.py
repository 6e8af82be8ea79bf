"""Fixtures that run `ctl` with real processes and see that it leaves nothing behind."""

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
from tandem.shared.memory.processes import start_ticks
from tandem.supervisor.children import process_tree
from tandem.supervisor.display import status

ROOT = Path(__file__).resolve().parents[2]


class Ctl:
    """`ctl` for one instance: `ctl("status", "--json")` runs a command in `folder` and returns what came of it."""

    def __init__(self, instance: str, folder: Path) -> None:
        self.instance = instance
        self.folder = folder

    def arguments(self, command: str, *words: str) -> list[str]:
        """The command line."""
        named = [] if command == "demo" else ["--instance", self.instance]
        return [sys.executable, "-m", "tandem.supervisor", command, *named, *words]

    def __call__(self, command: str, *words: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.arguments(command, *words),
            cwd=self.folder, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def script(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same through the clone's `ctl`, for commands that need no environment."""
        return subprocess.run(
            [str(ROOT / "ctl"), words[0], "--instance", self.instance, *words[1:]],
            cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def configure(self, **sections: Any) -> str:
        """Write a configuration file for quick tests, with these sections merged in; returns its name."""
        plain: dict[str, Any] = {
            "trainer": {"training_interval": 0.05, "nice": 0, "seed": 1, "min_batch_size": 1, "buffer_capacity": 500},
            "inference": {"port": 0, "lanes": 2},
            "supervisor": {"stop_grace": 3.0, "backoff_first": 0.05},
        }
        for section, values in sections.items():
            merged = {**plain.get(section, {}), **values} if isinstance(values, dict) else values
            plain[section] = merged
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(plain), encoding="utf-8")
        return path.name

    def up(self, **sections: Any) -> subprocess.CompletedProcess[str]:
        """Start the instance detached with such a configuration."""
        return self("up", "-d", "--config", self.configure(**sections))

    @property
    def status(self) -> dict[str, Any]:
        """What `ctl status --json` says, without starting a process for it."""
        return status.status(self.instance)

    def identity(self, name: str) -> tuple[int, int]:
        """Process id and start ticks of `trainer`, `inference` or `supervisor`."""
        pid = self.status[name]["pid"] or 0
        return pid, start_ticks(pid) if pid else 0


@pytest.fixture
def ctl(instance_name: str, tmp_path: Path, wait_until: Callable[..., Any]) -> Iterator[Ctl]:
    """`ctl` for an instance of the test's own in an empty folder. After the test nothing of it may run or be left."""
    made = Ctl(instance_name, tmp_path)
    yield made
    made("down", "--timeout", "10")
    mark = f"TANDEM_INSTANCE={instance_name}".encode()
    left = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0") and start_ticks(int(entry)):
                left.append((int(entry), start_ticks(int(entry))))
        except OSError:
            continue
    process_tree.kill(left)
    assert not left, "processes are left"


def parsed(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object in the last line of a command's output."""
    assert result.stdout, result.stderr
    value: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return value
