"""The Python client against a real server: what it decides and rewards is in the records, retries count once."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from server_kit import serving
from tandem.client import ApiError, AsyncClient, Client
from tandem.shared.experiences.sampler import ReplayReader


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of an application with labels, and a token."""
    with serving(tmp_path_factory.mktemp("lights"), token="secret") as running:
        yield running


def rewards(server: Any) -> dict[int, float]:
    """The actual reward of each record, by ticket."""
    rows = ReplayReader(server.engine.control, server.engine.instance.records, verify=True).recent(10**6)
    return {int(row["ticket"]): float(row["actual_reward"]) for row in rows}


def ticket(name: str | None) -> int:
    """The ticket in a decision's id."""
    assert name is not None
    return int(name.partition("-")[2], 16)


class Careless(threading.Thread):
    """Passes connections on to a server, and cuts every second one off after the request went through."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.cut = 0

    def run(self) -> None:
        """Until the listener is closed."""
        count = 0
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            count += 1
            with client, socket.create_connection(("127.0.0.1", self.port)) as server:
                request = b""
                while b"\r\n\r\n" not in request or not request.rstrip().endswith(b"}"):
                    request += client.recv(65536)
                server.sendall(request.replace(b"keep-alive", b"close", 1))
                answer = b""
                while not answer.rstrip().endswith(b"}"):
                    answer += server.recv(65536)
                if count % 2:
                    self.cut += 1
                else:
                    client.sendall(answer.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))


def test_it_decides_and_rewards(server: Any) -> None:
    """One at a time and several at once; a mistake is an ApiError that says what it is."""
    with Client(server.url, token="secret") as client:
        decision = client.decide([1.0, -1.0])
        assert decision.labels == (("red", "green", "blue")[decision.action[0]],)
        assert client.reward(decision, 0.5)
        assert rewards(server)[ticket(decision.id)] == 0.5
        client.decide([1.0, 1.0], key="k")
        assert client.reward(None, 0.25, key="k")
        assert not client.reward(None, 0.25, key="k")
        made = client.decide_many([[0.0, 1.0], [0.0], [2.0, 1.0]])
        assert isinstance(made[1], ApiError)
        given = client.reward_many([(made[0], 1.0), (made[2], 2.0), ("nothing", 1.0)])  # type: ignore[list-item]
        assert given[:2] == [True, True]
        assert isinstance(given[2], ApiError)
        assert given[2].status == 404
        assert rewards(server)[ticket(made[2].id)] == 2.0  # type: ignore[union-attr]
        with pytest.raises(ApiError, match="array of 2 numbers") as caught:
            client.decide([1.0])
        assert caught.value.status == 400
        with pytest.raises(ValueError, match="one of decision"):
            client.reward(None, 1.0)
    with Client(server.url, token="wrong") as client, pytest.raises(ApiError, match="403"):
        client.decide([1.0, 1.0])


def test_what_is_sent_again_counts_once(server: Any) -> None:
    """Half of the answers are lost after the server gave them: every decision is made once, every part counted once."""
    careless = Careless(server.port)
    careless.start()
    before = server.engine.get_stats()["decided"]
    url = f"http://127.0.0.1:{careless.listener.getsockname()[1]}"
    names = []
    with Client(url, token="secret") as client:
        for number in range(10):
            decision = client.decide([float(number), 0.0])
            for _ in range(3):
                assert client.reward(decision, 1.0, final=False)
            assert client.reward(decision, float(number))
            names.append(decision.id)
    careless.listener.close()
    assert careless.cut >= 25
    assert server.engine.get_stats()["decided"] == before + 10
    found = rewards(server)
    assert [found[ticket(name)] for name in names] == [3.0 + number for number in range(10)]


@pytest.mark.parametrize("is_final", [True, False])
def test_a_reward_by_key_is_not_sent_twice(server: Any, is_final: bool) -> None:
    """If its answer is lost nobody knows whether it counted: it raises, and the key's next decision does not get it."""
    careless = Careless(server.port)
    careless.start()
    key = f"basket-{is_final}"
    url = f"http://127.0.0.1:{careless.listener.getsockname()[1]}"
    with Client(server.url, token="secret") as direct, Client(url, token="secret") as client:
        first = direct.decide([1.0, 0.0], key=key)
        with pytest.raises(httpx.TransportError):
            client.reward(None, 2.0, key=key, final=is_final)
        second = direct.decide([2.0, 0.0], key=key)
        assert direct.reward(second, 0.5)
    careless.listener.close()
    assert careless.cut == 1
    found = rewards(server)
    assert (found[ticket(first.id)], found[ticket(second.id)]) == (2.0, 0.5)


def test_nobody_there_is_said_in_the_end() -> None:
    """After its tries a client raises what its transport said."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", tries=2) as client, pytest.raises(httpx.ConnectError):
        client.decide([1.0, 1.0])


def test_the_async_client_does_the_same(server: Any) -> None:
    """On an event loop, many at once."""
    import asyncio

    async def play() -> None:
        async with AsyncClient(server.url, token="secret") as client:
            made = await asyncio.gather(*(client.decide([float(number), 1.0]) for number in range(20)))
            given = await asyncio.gather(*(client.reward(item, float(place)) for place, item in enumerate(made)))
            assert given == [True] * 20
            found = rewards(server)
            assert [found[ticket(item.id)] for item in made] == list(range(20))
            several = await client.decide_many([[0.0, 1.0], []])
            assert isinstance(several[1], ApiError)
            assert await client.reward_many([(several[0], 3.0)]) == [True]  # type: ignore[list-item]
            with pytest.raises(ApiError, match="404"):
                await client.reward("nothing", 1.0)

    asyncio.run(play())


def test_it_brings_nothing_heavy_along() -> None:
    """Importing the client imports neither torch nor numpy."""
    code = "import sys, tandem.client; print(sorted({'torch', 'numpy', 'msgspec'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "[]\n"
