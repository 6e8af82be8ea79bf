"""The REST endpoints about training: statistics from shared memory, and what an operator may ask of the trainer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ....shared import commands
from ....shared.experiences.sampler import ReplayReader
from ....shared.memory import layout
from ....shared.telemetry.stats import training_stats
from ..access import Access
from ..json_response import JSON, BadBody, problem, read_json
from ..limits import Limits
from .overview import Overview
from .versions import rewards_by_version

if TYPE_CHECKING:
    from ...engine import Engine

_RECORDS = 20_000
"""Newest experiences that the table of versions is made from; they are read in about ten milliseconds."""
_STREAM_INTERVAL = 1.0
_STREAM_EVENTS = 15
"""Events after which a stream ends and the page opens the next: an open response would hold up a server's shutdown."""
_STREAMS = 64
_COMMANDS = ("checkpoint", "rollback", "reload")
_LARGEST = 2**63
_ANSWERS = {
    "done": (200, "done"),
    "refused": (409, "another command took its place"),
    "missing": (404, "there is no such checkpoint"),
    "unreadable": (409, "that checkpoint is damaged or belongs to another model"),
    "invalid": (409, "the configuration file was refused; see the trainer's log"),
    "failed": (500, "it failed; see the trainer's log"),
    "timeout": (504, "the trainer does not answer; it will do it when it is back"),
}


class TrainingApi:
    """Endpoints on one engine. `is_stopping_within(seconds)` waits for a stop, which ends the streams."""

    def __init__(
        self, engine: Engine, access: Access, limits: Limits, is_stopping_within: Callable[[float], Awaitable[bool]]
    ) -> None:
        self._access = access
        self._limits = limits
        self._is_stopping_within = is_stopping_within
        self._control = engine.control
        self._overview = Overview(engine)
        self._reader = ReplayReader(engine.control, engine.instance.records)
        self._streams = 0

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("/api/training/stats", self.stats),
            Route("/api/training/history", self.history),
            Route("/api/training/versions", self.versions),
            Route("/api/training/live", self.live),
            Route("/api/training/stream", self.stream),
            Route("/api/training/pause", self.pause, methods=["POST"]),
            Route("/api/training/resume", self.resume, methods=["POST"]),
            *(Route(f"/api/training/{name}", self.command, methods=["POST"], name=name) for name in _COMMANDS),
        ]

    async def stats(self, request: Request) -> Response:
        """Versions, training, buffer and configuration."""
        return JSON(training_stats(self._control))

    async def history(self, request: Request) -> Response:
        """The newest training steps with a version above `since`, oldest first, at most `limit`."""
        try:
            since, limit = _range(request)
        except ValueError as error:
            return problem(400, str(error))
        # All rows take some ten milliseconds of Python: beside the event loop, so that decisions go on in between.
        rows = await asyncio.to_thread(self._control.history, since, limit)
        return JSON({"model_version": self._control.get("version"), "rows": rows})

    async def versions(self, request: Request) -> Response:
        """What the decisions of each version above `since` earned, of the experiences still in memory."""
        try:
            since, limit = _range(request)
        except ValueError as error:
            return problem(400, str(error))
        rows = await asyncio.to_thread(self._reader.recent, _RECORDS)
        listed = rewards_by_version(rows, since, limit)
        return JSON({"model_version": self._control.get("version"), "versions": listed})

    async def live(self, request: Request) -> Response:
        """The dashboard's picture of this moment, with the steps above `since`."""
        try:
            since, limit = _range(request)
        except ValueError as error:
            return problem(400, str(error))
        return JSON(self._overview.picture(since, limit))

    async def stream(self, request: Request) -> Response:
        """The same each second, as server-sent events."""
        try:
            since, limit = _range(request)
        except ValueError as error:
            return problem(400, str(error))
        if self._streams >= _STREAMS:
            return problem(503, "too many streams")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._events(since, limit), media_type="text/event-stream", headers=headers)

    async def _events(self, since: int, limit: int) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            head = self._overview.head
            for number in range(_STREAM_EVENTS):
                if number:
                    # Only what was written since the last event is looked at: the whole history takes milliseconds.
                    head, limit = self._overview.head, self._overview.head - head
                yield b"data: " + msgspec.json.encode(self._overview.picture(since, limit)) + b"\n\n"
                if await self._is_stopping_within(_STREAM_INTERVAL):
                    break
            yield b"event: end\ndata: {}\n\n"
        finally:
            self._streams -= 1

    async def pause(self, request: Request) -> Response:
        """Let the trainer idle; decisions go on."""
        return self._set_paused(request, True)

    async def resume(self, request: Request) -> Response:
        """Let the trainer go on."""
        return self._set_paused(request, False)

    def _set_paused(self, request: Request, paused: bool) -> Response:
        if not self._access.may_change(request.scope):
            return _denied()
        commands.set_paused(self._control, paused)
        return JSON({"status": "success", "message": "training is paused" if paused else "training goes on"})

    async def command(self, request: Request) -> Response:
        """Checkpoint, roll back (to `version`, `"best"` or the previous checkpoint) or reload the configuration."""
        if not self._access.may_change(request.scope):
            return _denied()
        name = request.url.path.rpartition("/")[2]
        try:
            body = await read_json(request, self._limits.body_bytes)
            argument = _rollback_argument(body) if name == "rollback" else 0
        except BadBody as error:
            return problem(error.status, str(error))
        answer = await asyncio.to_thread(commands.send, self._control, name, argument)
        status, text = _ANSWERS.get(answer.status, (500, answer.status))
        if status != 200:
            return problem(status, f"{name}: {text}")
        return JSON({"status": "success", "message": f"{name}: version {answer.version}", "version": answer.version})


def _denied() -> Response:
    return problem(403, "this needs the token, or a request from this machine")


def _rollback_argument(body: Any) -> int:
    version = body.get("version") if isinstance(body, dict) else None
    if version is None or version == "previous":
        return commands.PREVIOUS
    if version == "best":
        return commands.BEST
    if not isinstance(version, int) or isinstance(version, bool) or not 0 < version < _LARGEST:
        raise BadBody(400, 'version: must be a version number, "previous" or "best"')
    return version


def _range(request: Request) -> tuple[int, int]:
    return _number(request, "since", 0, _LARGEST), _number(request, "limit", layout.HISTORY_ROWS, layout.HISTORY_ROWS)


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= most):
        raise ValueError(f"{name}: must be a whole number, 0 to {most}")
    return int(text)
