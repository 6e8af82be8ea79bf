"""Plays simulated territories against a decision server over WebSocket: `python -m tandem.queen.game_client`.

Each territory is a connection of its own in the simulator's dialect: one observation, the next frame is the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .game_clock import WINDOW
from .play_result import PlayResult, Tally
from .world import World

ANSWER_TIMEOUT = 2.0
RETRY_DELAY = 0.25

_REFUSALS = (OSError, InvalidHandshake, TimeoutError, asyncio.TimeoutError, ConnectionClosed)
# A proxy from the environment is never wanted here; older versions of the library know none.
_OPTIONS: dict[str, Any] = {"proxy": None} if "proxy" in inspect.signature(connect.__init__).parameters else {}


class Territory:
    """One simulated territory and its connection."""

    def __init__(self, url: str, world: World, period: float, tally: Tally, territory_id: str, name: str) -> None:
        self.world = world
        self._url = url
        self._period = period
        self._tally = tally
        self._territory_id = territory_id
        self._name = name
        self._sent = 0

    async def play(self, first: float, stop: asyncio.Event) -> None:
        """Observe every period from `first` (event-loop time) until `stop`; connect again whenever it is lost."""
        due = first
        while not stop.is_set():
            try:
                connection = await connect(
                    self._url, compression=None, open_timeout=5, close_timeout=1, ping_interval=None, **_OPTIONS
                )
            except _REFUSALS:
                self._tally.error("refused")
                await _pause(RETRY_DELAY, stop)
                continue
            try:
                due = await self._converse(connection, due, stop)
            except asyncio.TimeoutError:
                # The late answer would be taken for the next one's: only a fresh connection is in step again.
                self._tally.error("timeouts")
            except (ConnectionClosed, OSError):
                if not stop.is_set():
                    self._tally.error("lost")
                    await _pause(RETRY_DELAY, stop)
            finally:
                await connection.close()

    async def _converse(self, connection: ClientConnection, due: float, stop: asyncio.Event) -> float:
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            if due > loop.time():
                await _pause(due - loop.time(), stop)
                if stop.is_set():
                    break
            # What could not be kept up with is not made up for.
            due = max(due + self._period, loop.time())
            self.world.advance(WINDOW)
            await self._decide(connection)
        return due

    async def _decide(self, connection: ClientConnection) -> None:
        self._sent += 1
        message_id = f"{self._name}-{self._sent}"
        now = time.time()
        data = {**self.world.observation(), "timestamp": now, "territoryId": self._territory_id}
        frame = msgspec.json.encode(
            {"type": "observation_data", "timestamp": now, "messageId": message_id, "data": data}
        ).decode()
        started = time.perf_counter()
        await connection.send(frame)
        answer = await asyncio.wait_for(connection.recv(), ANSWER_TIMEOUT)
        seconds = time.perf_counter() - started
        reply = _parsed(answer)
        if reply is None or reply.get("type") not in ("spawn_decision", "no_action"):
            self._tally.error("error_frames")
            return
        if reply.get("messageId") != message_id:
            self._tally.error("out_of_order")
            return
        decided = reply.get("data") or {}
        self._tally.reply(decided, seconds)
        chunk, kind = decided.get("spawnChunk"), decided.get("spawnType")
        if reply["type"] == "no_action" or decided.get("skip") or not isinstance(chunk, int) or chunk < 0:
            self._tally.wait += 1
            return
        self._tally.send += 1
        if not self.world.spawn(chunk, str(kind)):
            self._tally.failed_spawns += 1
            await connection.send(json.dumps(_failure(chunk, str(kind), self.world.tick)))


# Many parameters: the options of the command.
# Long: their list, and what becomes of the tasks on every way out.
async def play(
    url: str,
    territories: int = 8,
    speed: float = 100.0,
    seconds: float | None = None,
    seed: int = 0,
    territory_id: str = "sim-territory",
    chunks_per_axis: int = 20,
    costs: tuple[float, float] = (15.0, 25.0),
    stop: asyncio.Event | None = None,
    progress: Callable[[PlayResult, float | None], None] | None = None,
    progress_interval: float = 1.0,
) -> PlayResult:
    """Play until `seconds` are over or `stop` is set, and return what was measured.

    Each of the territories observes every 15 s / `speed`. `costs` are the energies of the two types of parasite.
    `progress` is called every `progress_interval` seconds with the figures so far and the mean of the latest rewards.
    """
    stop = stop or asyncio.Event()
    tally = Tally()
    loop = asyncio.get_running_loop()
    period = WINDOW / speed
    players = [
        Territory(
            url,
            World(seed * 1000 + index, chunks_per_axis, energy_cost=costs[0], combat_cost=costs[1]),
            period,
            tally,
            territory_id,
            f"game-{index}",
        )
        for index in range(territories)
    ]
    start = loop.time()
    # Territories take turns, so that the load is even.
    tasks = [
        asyncio.ensure_future(player.play(start + index * period / territories, stop))
        for index, player in enumerate(players)
    ]
    gathered = asyncio.gather(*tasks)

    def report() -> None:
        if progress is not None:
            recent = sum(tally.recent) / len(tally.recent) if tally.recent else None
            progress(tally.result([player.world.mining_share() for player in players]), recent)

    try:
        over = math.inf if seconds is None else start + seconds
        await _wait(gathered, stop, over, progress_interval, report)
        final = tally.result([player.world.mining_share() for player in players])
        stop.set()
        await gathered
        return final
    finally:
        stop.set()
        for task in tasks:
            task.cancel()


async def _wait(
    playing: asyncio.Future[Any], stop: asyncio.Event, over: float, interval: float, report: Callable[[], None]
) -> None:
    """Wait until all have ended, `stop` is set or the moment `over` (event-loop time); report every `interval` s."""
    while not stop.is_set():
        left = min(interval, over - asyncio.get_running_loop().time())
        if left <= 0:
            break
        await asyncio.wait({playing}, timeout=left)
        if playing.done():
            break
        report()


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except asyncio.TimeoutError:
        return


def _parsed(answer: str | bytes) -> dict[str, Any] | None:
    try:
        reply = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return None
    return reply if isinstance(reply, dict) else None


def _failure(chunk: int, kind: str, tick: int) -> dict[str, Any]:
    """The report of a spawn that could not be executed; its keys lie at the top level and name no territory."""
    return {
        "type": "spawn_result",
        "success": False,
        "spawnChunk": chunk,
        "spawnType": kind,
        "reason": "insufficient_energy",
        "tick": tick,
    }


def _progress_line(result: PlayResult, recent: float | None) -> str:
    reward = "-" if recent is None else f"{recent:+.3f}"
    p50, p99 = (result.latency_ms[name] or 0.0 for name in ("p50", "p99"))
    return (
        f"version {result.model_version['last'] or 0}  {result.decisions} decisions ({result.decisions_per_s:.1f}/s)"
        f"  send {result.send} wait {result.wait}  reward {reward}"
        f"  p50 {p50:.1f} ms p99 {p99:.1f} ms  errors {result.errors}"
    )


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tandem.queen.game_client", description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:8010/ws", help="of the server (default: %(default)s)")
    parser.add_argument("--territories", type=int, default=8, help="territories played at once (default: %(default)s)")
    parser.add_argument("--speed", type=float, default=100.0, help="times faster than real (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="stop after so many seconds (default: play on)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated worlds (default: %(default)s)")
    parser.add_argument("--territory-id", default="sim-territory", help="name sent with each observation")
    parser.add_argument("--chunks-per-axis", type=int, default=20, help="as the server has it (default: %(default)s)")
    parser.add_argument("--energy-cost", type=float, default=15.0, help="of an energy parasite (default: %(default)s)")
    parser.add_argument("--combat-cost", type=float, default=25.0, help="of a combat parasite (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, and nothing before")
    options = parser.parse_args(given)
    if options.territories < 1:
        parser.error("--territories must be 1 or more")
    if not options.speed > 0:
        parser.error("--speed must be above 0")
    if options.seconds is not None and not options.seconds > 0:
        parser.error("--seconds must be above 0")
    return options


async def _main(options: argparse.Namespace) -> PlayResult:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    is_terminal = sys.stdout.isatty()

    def show(result: PlayResult, recent: float | None) -> None:
        print(_progress_line(result, recent), end="\033[K\r" if is_terminal else "\n", flush=True)

    return await play(
        options.url,
        options.territories,
        options.speed,
        options.seconds,
        options.seed,
        options.territory_id,
        options.chunks_per_axis,
        (options.energy_cost, options.combat_cost),
        stop,
        None if options.json else show,
        1.0 if is_terminal else 5.0,
    )


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; 0 if at least one decision was answered, else 1."""
    options = _arguments(given)
    result = asyncio.run(_main(options))
    if options.json:
        print(json.dumps(result.to_dict(), allow_nan=False))
    else:
        print(_progress_line(result, result.mean_reward["last_quarter"]))
    return 0 if result.decisions else 1


if __name__ == "__main__":
    sys.exit(main())
