"""The simulated game over a real WebSocket, against servers with scripted answers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tandem.queen.game_client import main, play
from tandem.queen.observation import parse_observation
from websockets.asyncio.server import ServerConnection, serve

Script = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]


def answer(message: dict[str, Any], **data: Any) -> str:
    """A reply to an observation: WAIT, or SEND if a chunk is given."""
    kind = "spawn_decision" if "spawnChunk" in data else "no_action"
    return json.dumps({"type": kind, "timestamp": 0, "messageId": message["messageId"], "data": data})


class Server:
    """A WebSocket server that follows a script for each frame, and remembers the frames."""

    def __init__(self, script: Script) -> None:
        self.frames: list[dict[str, Any]] = []
        self.connections = 0
        self._script = script

    async def __call__(self, connection: ServerConnection) -> None:
        self.connections += 1
        async for text in connection:
            message = json.loads(text)
            self.frames.append(message)
            if message["type"] == "observation_data":
                await self._script(connection, message)


def run(script: Script, **options: Any) -> tuple[Any, Server]:
    """Play against a server with this script; the result and the server."""
    server = Server(script)

    async def game() -> Any:
        async with serve(server, "127.0.0.1", 0) as listening:
            port = next(iter(listening.sockets)).getsockname()[1]
            return await play(f"ws://127.0.0.1:{port}/ws", **{"speed": 500.0, "seconds": 1.0, **options})

    return asyncio.run(game()), server


def test_game_is_played_in_the_simulators_dialect() -> None:
    """Each territory sends valid observations of its own; decisions, versions and rewards are counted."""
    version = 0

    async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
        nonlocal version
        version += 1
        if version % 2:
            await connection.send(answer(message, modelVersion=version, lastReward=0.5))
        else:
            await connection.send(
                answer(message, modelVersion=version, lastReward=0.5, spawnChunk=7, spawnType="energy", skip=False)
            )

    result, server = run(script, territories=3, territory_id="somewhere")
    observations = [frame for frame in server.frames if frame["type"] == "observation_data"]
    assert server.connections == 3
    for frame in observations:
        assert parse_observation(frame["data"]).territory_id == "somewhere"
    assert result.decisions == result.send + result.wait > 10
    assert abs(result.decisions - len(observations)) <= 3
    assert abs(result.send - result.wait) <= 3
    assert result.model_version["first"] == 1
    assert result.model_version["last"] >= result.decisions - 3
    assert result.mean_reward == {"first_quarter": 0.5, "last_quarter": 0.5}
    assert result.errors == 0
    assert 0 < result.latency_ms["p50"] <= result.latency_ms["p99"]


def test_decisions_are_executed_or_reported() -> None:
    """A spawn shows in the next observation; one that cannot be executed is reported at the top level, unanswered."""

    async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
        await connection.send(answer(message, spawnChunk=399 if len(server_frames) % 2 else 400, spawnType="combat"))
        server_frames.append(message)

    server_frames: list[dict[str, Any]] = []
    result, server = run(script, territories=1, costs=(15.0, 80.0))
    failures = [frame for frame in server.frames if frame["type"] == "spawn_result"]
    assert failures
    assert result.failed_spawns == pytest.approx(len(failures), abs=1)
    assert failures[0] == {
        "type": "spawn_result",
        "success": False,
        "spawnChunk": 400,
        "spawnType": "combat",
        "reason": "insufficient_energy",
        "tick": failures[0]["tick"],
    }
    energies = [frame["data"]["queenEnergy"]["current"] for frame in server_frames]
    assert energies[:3] == [95.0, 100.0, 100.0 - 80.0 + 45.0]
    assert result.errors == 0


def test_skipped_decisions_are_not_executed() -> None:
    """A decision with skip, or without a chunk, counts as WAIT and spawns nothing."""

    async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
        data: dict[str, Any] = {"spawnChunk": 5, "spawnType": "energy", "skip": True}
        if len(server_frames) % 2:
            data = {"spawnChunk": -1, "spawnType": None, "skip": True}
        server_frames.append(message)
        await connection.send(answer(message, **data))

    server_frames: list[dict[str, Any]] = []
    result, server = run(script, territories=1)
    assert result.send == result.errors == 0
    assert result.wait > 0
    assert all(not frame["data"]["parasitesEnd"] for frame in server_frames)
    assert {frame["type"] for frame in server.frames} == {"observation_data"}


def test_error_frames_and_strays_are_counted() -> None:
    """An error frame, a frame that is not JSON and an answer to another question are errors, and the game goes on."""
    replies = 0

    async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
        nonlocal replies
        replies += 1
        frames = {
            1: json.dumps({"type": "error", "data": {"errorCode": "PROCESSING_ERROR"}}),
            2: "not JSON",
            3: answer({"messageId": "another"}),
            4: "[]",
        }
        await connection.send(frames.get(replies, answer(message)))

    result, _ = run(script, territories=1)
    assert (result.error_kinds["error_frames"], result.error_kinds["out_of_order"], result.errors) == (3, 1, 4)
    assert result.wait > 0


def test_lost_connection_is_made_again() -> None:
    """A connection that the server drops is counted and made again, and the game goes on."""
    replies = 0

    async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
        nonlocal replies
        replies += 1
        if replies == 3:
            await connection.close()
        else:
            await connection.send(answer(message))

    result, server = run(script, territories=1, seconds=1.5)
    assert server.connections == 2
    assert (result.error_kinds["lost"], result.errors) == (1, 1)
    assert result.wait > 3


def test_late_answer_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that does not come in time is counted, and the next observation starts on a fresh connection."""
    monkeypatch.setattr("tandem.queen.game_client.ANSWER_TIMEOUT", 0.2)
    replies = 0

    async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
        nonlocal replies
        replies += 1
        if replies != 2:
            await connection.send(answer(message))

    result, server = run(script, territories=1)
    assert server.connections == 2
    assert (result.error_kinds["timeouts"], result.errors) == (1, 1)


def test_nobody_there_is_refused() -> None:
    """Without a server each attempt counts as refused, and the exit status says that nothing was decided."""
    assert main(["--url", "ws://127.0.0.1:9/ws", "--seconds", "0.5", "--territories", "1", "--json"]) == 1


def test_figures_are_reported_while_it_plays() -> None:
    """Progress is told at the interval asked for; setting the event ends the game."""
    told = []

    async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
        await connection.send(answer(message, lastReward=0.25, modelVersion=1))

    async def game() -> Any:
        stop = asyncio.Event()

        def progress(result: Any, recent: float | None) -> None:
            told.append((result.decisions, recent))
            if recent is not None:
                stop.set()

        async with serve(Server(script), "127.0.0.1", 0) as listening:
            port = next(iter(listening.sockets)).getsockname()[1]
            url = f"ws://127.0.0.1:{port}/ws"
            return await play(url, speed=500.0, stop=stop, progress=progress, progress_interval=0.1)

    result = asyncio.run(game())
    assert told[-1][1] == 0.25
    assert result.decisions >= told[-1][0] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_with_its_figures(number: int) -> None:
    """SIGINT and SIGTERM end the game; its last line is still the JSON object, with nothing on standard error."""

    async def game() -> tuple[int | None, bytes, bytes]:
        reached = asyncio.Event()

        async def script(connection: ServerConnection, message: dict[str, Any]) -> None:
            await connection.send(answer(message, modelVersion=3))
            if len(server.frames) > 5:
                reached.set()

        server = Server(script)
        async with serve(server, "127.0.0.1", 0) as listening:
            port = next(iter(listening.sockets)).getsockname()[1]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tandem.queen.game_client", "--url", f"ws://127.0.0.1:{port}/ws"),
                *("--speed", "500", "--json"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            await asyncio.wait_for(reached.wait(), 30)
            os.kill(process.pid, number)
            out, err = await asyncio.wait_for(process.communicate(), 30)
            return process.returncode, out, err

    status, out, err = asyncio.run(game())
    figures = json.loads(out.splitlines()[-1])
    assert (status, err) == (0, b"")
    assert figures["decisions"] > 0
    assert {"decisions_per_s", "latency_ms", "send", "wait", "errors", "mean_reward", "model_version"} <= set(figures)
    assert figures["model_version"] == {"first": 3, "last": 3}


@pytest.mark.parametrize("option", [["--territories", "0"], ["--speed", "0"], ["--seconds", "-1"]])
def test_senseless_options_are_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Options out of range are refused with the option's name."""
    with pytest.raises(SystemExit) as caught:
        main(option)
    assert caught.value.code == 2
    assert option[0] in capsys.readouterr().err
