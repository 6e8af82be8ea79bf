"""Runs the example programs as they are, started by `ctl` on a port and under a name of the test's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tandem.shared.telemetry.stats import buffer_stats
from tandem.supervisor.display import status

ROOT = Path(__file__).resolve().parents[2]


class Example:
    """A copy of one example in a folder of its own."""

    def __init__(self, name: str, instance: str, folder: Path) -> None:
        self.name = name
        self.instance = instance
        self.folder = folder
        self.path = folder / "examples" / name
        shutil.copytree(ROOT / "examples" / name, self.path, ignore=shutil.ignore_patterns("__pycache__"))
        self.port = free_port()
        self.config = self.path / "config.yaml"
        plain = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        command: str = plain["inference"]["command"]
        if command != "none":
            words = command.split()
            if "--port" in words:
                words[words.index("--port") + 1] = str(self.port)
            else:
                words[words.index("--bind") + 1] = f"127.0.0.1:{self.port}"
            plain["inference"]["command"] = " ".join(words)
        if "port" in plain["inference"]:
            plain["inference"]["port"] = free_port()
        plain.setdefault("trainer", {})["nice"] = 0
        # A busy machine is no reason to kill anything.
        plain["supervisor"] = {"start_timeout": 120.0, "stop_grace": 30.0, "hang_timeout": 30.0}
        self.config.write_text(yaml.safe_dump(plain), encoding="utf-8")

    def ctl(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`ctl` for the example's instance."""
        return self.run(sys.executable, "-m", "tandem.supervisor", command, "--instance", self.instance, *words)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program where the README says that it is run: above `examples`."""
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=150, check=False,
            env={**os.environ, "TANDEM_INSTANCE": self.instance},
        )  # fmt: skip

    def up(self) -> None:
        """Start it and wait until it is ready."""
        started = self.ctl("up", "-d", "--config", f"examples/{self.name}/config.yaml")
        assert started.returncode == 0, started.stderr

    def post(self, path: str, body: Any) -> httpx.Response:
        """POST on a connection of its own, so that any worker may get it."""
        return httpx.post(f"http://127.0.0.1:{self.port}{path}", json=body, timeout=20, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        """GET on a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=20, trust_env=False)

    @property
    def status(self) -> dict[str, Any]:
        """What `ctl status --json` says."""
        return status.status(self.instance)

    @property
    def stats(self) -> dict[str, Any]:
        """The buffer's counts over all lanes, as `Engine.get_stats`."""
        control = status.open_control(self.instance)
        assert control is not None
        try:
            return {
                **buffer_stats(control),
                "delivered": sum(control.lane(lane)["delivered"] for lane in range(control.get("lanes"))),
            }
        finally:
            control.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def example(instance_name: str, tmp_path: Path) -> Iterator[Callable[[str], Example]]:
    """`example(name)` copies an example. After the test its processes have ended and nothing is left."""
    made: list[Example] = []

    def make(name: str) -> Example:
        made.append(Example(name, instance_name, tmp_path))
        return made[-1]

    yield make
    for item in made:
        ended = item.ctl("down")
        assert ended.returncode in (0, 3), ended.stderr
