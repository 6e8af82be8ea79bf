"""A real instance served in this process over a real socket, and small clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml
from websockets.sync.client import ClientConnection, connect


def unique_name() -> str:
    """An instance name that nobody else uses."""
    return f"test-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class RunningServer:
    """Creates an instance, attaches an engine and serves it on a free port in a thread, until `close`.

    `gate` holds settings for the gate's YAML file, `limits` fields of `Limits`; sections are merged into the
    configuration.
    """

    def __init__(
        self,
        folder: Path,
        application: str = "tandem.queen",
        gate: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        token: str = "",
        host: str = "",
        **sections: dict[str, Any],
    ) -> None:
        from tandem.inference_proc.engine import Engine
        from tandem.inference_proc.web.bundled_server import BundledServer
        from tandem.inference_proc.web.limits import Limits
        from tandem.inference_proc.web.service import Service
        from tandem.inference_proc.workers.sockets import listen
        from tandem.shared.configuration.config import parse
        from tandem.shared.instance import create_instance

        self.name = unique_name()
        (folder / "simulation_gate.yaml").write_text(yaml.safe_dump(gate or {}), encoding="utf-8")
        plain: dict[str, Any] = {
            "application": application,
            "data_dir": str(folder / "data"),
            "trainer": {"training_interval": 0.01, "seed": 1, "nice": 0, "buffer_capacity": 512},
            "inference": {"lanes": 2, "seed": 1, "port": 0, **({"host": host} if host else {})},
        }
        for section, values in sections.items():
            plain[section] = {**plain.get(section, {}), **values}
        create_instance(self.name, parse(plain, "the test's configuration", str(folder)))
        try:
            self.engine = Engine.attach(self.name)
        except BaseException:
            self._remove()
            raise
        self.service = Service(self.engine, Limits(**(limits or {})), token)
        listener = listen("127.0.0.1", 0, self.service.limits.write_timeout)
        self.port: int = listener.getsockname()[1]
        self.server = BundledServer(self.service, listener)
        self._thread = threading.Thread(target=lambda: asyncio.run(self.server.run_service()))
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self.service.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.002)

    @property
    def url(self) -> str:
        """The HTTP base address."""
        return f"http://127.0.0.1:{self.port}"

    def connect(self, path: str = "/ws", **options: Any) -> ClientConnection:
        """A WebSocket client; use it as a context manager."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, compression=None, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET over HTTP."""
        return httpx.get(self.url + path, trust_env=False, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any method over HTTP."""
        return httpx.request(method, self.url + path, trust_env=False, **options)

    def close(self) -> None:
        """Stop serving and remove the instance."""
        self.server.should_exit = True
        self._thread.join(timeout=30)
        assert not self._thread.is_alive(), "the server did not stop"
        self.engine.close()
        self._remove()

    def _remove(self) -> None:
        from tandem.shared.memory.segments import FOLDER, PREFIX

        for path in Path(FOLDER).glob(f"{PREFIX}{self.name}*"):
            path.unlink(missing_ok=True)


LIGHTS = """
from tandem import ActionHead, Application

def create(settings, folder):
    return Application("lights", ("east", "north"), (ActionHead("light", 3, ("red", "green", "blue")),))
"""
"""An application with one head, whose choices have labels, and without a model."""


@contextlib.contextmanager
def serving(folder: Path, source: str = LIGHTS, **options: Any) -> Iterator[RunningServer]:
    """A server of the application in this source, under a module name of its own."""
    name = f"served_{uuid.uuid4().hex[:8]}"
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    sys.path.insert(0, str(folder))
    running = RunningServer(folder, application=name, **options)
    try:
        yield running
    finally:
        running.close()
        sys.path.remove(str(folder))


def ask(socket: ClientConnection, frame: Any, timeout: float = 10.0) -> dict[str, Any]:
    """Send one frame (text, bytes, or plain data as JSON) and return the next frame as strict JSON."""
    socket.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame))
    return receive(socket, timeout)


def receive(socket: ClientConnection, timeout: float = 10.0) -> dict[str, Any]:
    """The next frame, a text frame with one object in strict JSON."""
    frame = socket.recv(timeout=timeout)
    assert isinstance(frame, str), "replies are text frames"
    reply = json.loads(frame, parse_constant=_refuse_constant)
    assert isinstance(reply, dict)
    return reply


def _refuse_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def assert_silent(socket: ClientConnection) -> None:
    """Nothing was sent besides the answers: the next frame after a ping is its pong."""
    reply = ask(socket, {"type": "ping", "messageId": "silence"})
    assert (reply["type"], reply["messageId"]) == ("pong", "silence")


def browser_observation(
    mining: tuple[int, ...] = (47,),
    protectors: tuple[int, ...] = (),
    queen: float = 100.0,
    territory: str = "territory_0_0",
    **extra: Any,
) -> dict[str, Any]:
    """An observation in the browser's dialect."""
    workers = [{"x": 12.5, "z": -40.0, "chunkId": chunk} for chunk in mining]
    return {
        "type": "observation_data",
        "timestamp": 1769000015000,
        "clientId": "game_client_7",
        "data": {
            "timestamp": 1769000015000,
            "miningWorkers": workers,
            "workersPresent": workers,
            "protectors": [{"x": 300.0, "z": 9.0, "chunkId": chunk} for chunk in protectors],
            "parasitesStart": [],
            "parasitesEnd": [{"chunkId": 47, "type": "energy"}],
            "queenEnergy": {"current": queen, "max": 100},
            "playerEnergy": {"start": 400, "end": 420},
            "playerMinerals": {"start": 50, "end": 80},
            "territoryId": territory,
            "hiveChunk": 210,
        },
        **extra,
    }


def simulator_observation(tick: int = 1, queen: float = 100.0, **extra: Any) -> dict[str, Any]:
    """An observation in the simulator's dialect."""
    return {
        "type": "observation_data",
        "timestamp": 1769000015.25 + tick,
        "data": {
            "timestamp": 1769000015.25 + tick,
            "tick": tick,
            "miningWorkers": [{"id": 1, "chunkId": 47, "x": 15, "y": 2, "state": "mining"}],
            "workersPresent": [{"id": 2, "chunkId": 52, "x": 4, "y": 3, "state": "fleeing"}],
            "protectors": [{"id": 3, "chunkId": 60, "x": 1, "y": 3, "state": "patrolling"}],
            "parasitesStart": [{"id": 9, "chunkId": 47, "type": "combat", "x": 1, "y": 2}],
            "parasitesEnd": [{"id": 9, "chunkId": 47, "type": "combat", "x": 1, "y": 2}],
            "queenEnergy": {"current": queen},
            "playerEnergy": {"start": 10, "end": 12},
            "playerMinerals": {"start": 0, "end": 1},
            "territoryId": "sim-territory",
            "hiveChunk": 136,
        },
        **extra,
    }
