"""Clients of an instance's server that go on whatever happens to its processes, and know what was acknowledged."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

FAULTS = (OSError, http.client.HTTPException, WebSocketException, EOFError)
"""What a client of a server process that is killed may see."""


class Transport:
    """How one client decides and rewards. `decide` and `reward` return what the server answered, or raise FAULTS."""

    def decide(self, key: str, features: list[float]) -> dict[str, Any]:
        """Decide for one observation under `key`."""
        raise NotImplementedError

    def reward(self, key: str, value: float) -> bool:
        """Reward the decision that waits under `key`; True if the server acknowledged that it counts."""
        raise NotImplementedError

    def close(self) -> None:
        """The client goes."""


class OverWebSocket(Transport):
    """The generic protocol, one connection for each call: decision and reward meet whichever process accepts."""

    def __init__(self, url: str) -> None:
        self._url = f"ws{url[4:]}/ws"

    def _ask(self, frame: dict[str, Any]) -> dict[str, Any]:
        socket: ClientConnection
        with connect(self._url, open_timeout=30, close_timeout=1, proxy=None) as socket:
            socket.send(json.dumps(frame))
            answer: dict[str, Any] = json.loads(socket.recv(timeout=30))
        if answer.get("status") == "error" or "error" in answer:
            raise ValueError(f"{frame} was answered with {answer}")
        data: dict[str, Any] = answer.get("data", answer)
        return data

    def decide(self, key: str, features: list[float]) -> dict[str, Any]:
        return self._ask({"type": "decide", "key": key, "observation": features})

    def reward(self, key: str, value: float) -> bool:
        return bool(self._ask({"type": "reward", "key": key, "value": value}).get("matched"))


def get(url: str, path: str = "/health", timeout: float = 30.0) -> tuple[int, dict[str, Any]]:
    """GET over a new connection: status and body. Raises one of FAULTS."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@dataclass
class Tally:
    """What a client saw, keys in the order of their decisions.

    `acknowledged`: of rewards that the server said count; `unsure`: of those whose answer never came, so that they may
    have counted or not; `refused`: of the others.
    """

    answered: int = 0
    decided: int = 0
    acknowledged: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What no kill explains."""


class Client(threading.Thread):
    """One client in a thread of its own: decides, rewards and asks `/health`, each over a new connection."""

    def __init__(self, name: str, url: str, transport: Callable[[str], Transport] = OverWebSocket) -> None:
        super().__init__(name=name, daemon=True)
        self.tally = Tally()
        self._url = url
        self._transport = transport(url)
        self._end = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._end.is_set():
            number += 1
            try:
                self._turn(f"{self.name}-{number}", number)
            except Exception as error:  # whatever it is, the test shows it
                self.tally.wrong.append(repr(error))
        self._transport.close()

    def _turn(self, key: str, number: int) -> None:
        tally = self.tally
        try:
            status, _ = get(self._url)
            tally.answered += status == 200
            if status != 200:
                tally.wrong.append(f"/health answered {status}")
            self._transport.decide(key, [number % 7, 1.0, 0.0, -1.0])
        except FAULTS as error:
            tally.faults.append(repr(error))
            return
        tally.decided += 1
        try:
            matched = self._transport.reward(key, 1.0)
        except FAULTS as error:
            tally.faults.append(repr(error))
            tally.unsure.append(key)
            return
        (tally.acknowledged if matched else tally.refused).append(key)

    def stop(self, timeout: float = 60.0) -> Tally:
        """Let it end its turn; what it saw."""
        self._end.set()
        self.join(timeout)
        assert not self.is_alive(), "a client waits for an answer that does not come"
        return self.tally
