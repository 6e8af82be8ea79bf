"""The WebSocket transport: one reply for each request frame, in the order of the requests.

Clients on `/ws` take the next frame, whatever it is, as the answer to their last request: one frame too many would
shift all later answers. So an anonymous connection gets replies and nothing else; whether it lives is asked with
protocol pings.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from ...shared.messages.handler import MessageHandler
from ...shared.rate_limit import RateLimit
from .access import Access, deny
from .connections import Connection, Connections
from .limits import ALLOWANCE, Allowance, Limits

log = logging.getLogger(__name__)

_FRAMES_PER_TURN = 4
"""Frames that have piled up on one connection are answered this many at a time, so that others get their turn."""
_REFUSAL_PAUSE = 0.005
"""Seconds that a connection waits after a frame beyond its allowance: refusing costs as much as answering."""


class WebSocketEndpoint:
    """The ASGI application behind `/ws` and `/ws/{client_id}`."""

    def __init__(self, handler: MessageHandler, connections: Connections, access: Access, limits: Limits) -> None:
        self._handler = handler
        self._connections = connections
        self._access = access
        self._limits = limits
        self._warn = RateLimit(10.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until either side goes away."""
        client_id = scope.get("path_params", {}).get("client_id")
        if not self._access.allows_origin(scope):
            return await deny(scope, send, 403, "this origin may not connect")
        most = self._limits.client_id_length
        if client_id is not None and not (0 < len(client_id) <= most and client_id.isprintable()):
            return await deny(scope, send, 400, f"a client id has at most {most} characters, all of them printable")
        connection = self._connections.open(client_id, _peer(scope))
        if connection is None:
            return await deny(scope, send, 503, "too many connections")
        connection.trusted = self._access.may_change(scope)
        try:
            # The bundled server has counted the frames that are no messages (guarded.py); another counts none.
            allowance = scope.get("state", {}).get(ALLOWANCE)
            if allowance is None:
                allowance = Allowance(self._limits.frame_rate, self._limits.frame_burst)
            await self._serve(connection, allowance, receive, send)
        except OSError:
            pass  # the client vanished while a frame was sent to it
        finally:
            self._connections.close(connection)

    async def _serve(self, connection: Connection, allowance: Allowance, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        await send({"type": "websocket.accept"})
        greeting = self._handler.connected(connection)
        heartbeats: asyncio.Task[None] | None = None
        try:
            if connection.named:
                if greeting is not None:
                    await send(_text(greeting))
                heartbeats = asyncio.create_task(self._send_heartbeats(connection, send))
            await self._answer_frames(connection, allowance, receive, send)
        finally:
            self._handler.disconnected(connection)
            if heartbeats is not None:
                heartbeats.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await heartbeats

    async def _answer_frames(self, connection: Connection, allowance: Allowance, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] != "websocket.receive":
                return
            frame = message.get("text")
            if frame is None:
                frame = message.get("bytes") or b""
            connection.frames += 1
            connection.last_frame_at = time.time()
            if allowance.take():
                reply = await self._answer(connection, frame)
            else:
                text = f"more than {self._limits.frame_rate:g} frames a second"
                reply = self._handler.refuse(connection, frame, "CONNECTION_ERROR", text)
                await asyncio.sleep(_REFUSAL_PAUSE)
            if reply is not None:
                connection.replies += 1
                await send(_text(reply))
            if connection.frames % _FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _answer(self, connection: Connection, frame: str | bytes) -> bytes | None:
        try:
            return await self._handler.handle(connection, frame)
        except Exception:
            self._warn.exception(log, "a frame could not be answered")
            return self._handler.refuse(connection, frame, "PROCESSING_ERROR", "the server failed to answer this frame")

    async def _send_heartbeats(self, connection: Connection, send: Send) -> None:
        while True:
            await asyncio.sleep(self._limits.heartbeat_interval)
            frame = self._handler.heartbeat(connection)
            if frame is not None:
                await send(_text(frame))


def _text(frame: bytes) -> Message:
    return {"type": "websocket.send", "text": frame.decode()}


def _peer(scope: Scope) -> str:
    client: Any = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else ""
