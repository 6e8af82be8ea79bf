"""What stands between a socket and the application in the bundled server: no client can have the event loop to itself.

What arrives is handed to the parsers piece by piece, a few frames in each turn of the loop, so that a flood of tiny
frames or chunks delays others by less than a millisecond. Every WebSocket frame counts against the connection's
allowance: messages in `connection.py`, which refuses them one by one, control frames and fragments here, where too many
of them end the connection with 1008. An HTTP request that does not arrive in time ends its connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from ..shared.rate_limit import RateLimit
from .limits import ALLOWANCE, Allowance, Limits

log = logging.getLogger(__name__)

_PIECE = 128
"""Bytes handed on at first: 21 of the smallest frames."""
_LARGEST_PIECE = 4096
_SMALL = 256
"""What arrives in so few bytes is handed on as it is."""
_FRAMES_PER_TURN = 16
_EXTRA_BURST = 1000.0
"""Control frames and fragments at once: a megabyte in fragments of a kilobyte."""
_MESSAGES_QUEUED = 4
"""Messages parsed ahead of the application, which answers as many in a turn."""

_warn = RateLimit(10.0)


class GuardedConfig(uvicorn.Config):
    """uvicorn's configuration with these protocols and the limits that they keep to."""

    def __init__(self, app: Any, limits: Limits, **settings: Any) -> None:
        super().__init__(app, http=GuardedHttp, ws=GuardedWebSocket, **settings)
        self.limits = limits
        self.waiting: OrderedDict[GuardedHttp, None] = OrderedDict()
        """Connections whose request is not complete, the longest waiting first."""


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket connection. Reading stops while messages wait for the application or answers for the client."""

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self._limits: Limits = config.limits
        self._allowance = Allowance(self._limits.frame_rate, self._limits.frame_burst)
        super().__init__(config, server_state, {**app_state, ALLOWANCE: self._allowance}, _loop)
        # Nobody needs many of them at once, and who is cut off may come back.
        self._extra = Allowance(self._limits.frame_rate, min(self._limits.frame_burst, _EXTRA_BURST))
        # A client whose messages are refused one by one may still ping and answer pings.
        self._grace = Allowance(1.0, 20.0)
        self._unread = bytearray()
        self._piece = _PIECE
        self._frames = 0
        self._turn: asyncio.Handle | None = None

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; the first ones are the handshake, which uvicorn has read already."""
        if not self.handshake_initiated or (len(data) <= _SMALL and not self._unread and self._may_read()):
            super().data_received(data)
            return
        self._unread += data
        if self._turn is None:
            self._read_on()

    def _may_read(self) -> bool:
        return self.writable.is_set() and (self.close_sent or self.queue.qsize() < _MESSAGES_QUEUED)

    def _read_on(self) -> None:
        """Hand on some of what has arrived."""
        self._turn = None
        self._frames = 0
        while self._unread and self._may_read() and self._frames < _FRAMES_PER_TURN:
            if self.transport.is_closing():
                self._unread.clear()
                return
            before = self._frames
            piece = bytes(self._unread[: self._piece])
            del self._unread[: self._piece]
            super().data_received(piece)
            # In the middle of a large frame there is nothing to count.
            self._piece = _PIECE if self._frames > before else min(2 * self._piece, _LARGEST_PIECE)
        if self._unread:
            self.read_paused = True
            self.transport.pause_reading()
            if self._may_read():
                self._go_on()
        elif self.read_paused and self.queue.empty():
            self.read_paused = False
            self.transport.resume_reading()

    def _go_on(self) -> None:
        if self._turn is None:
            self._turn = self.loop.call_soon(self._read_on)

    async def receive(self) -> Any:
        """The application's next event; once it has them all, more is read."""
        message = await self.queue.get()
        if self.queue.empty():
            if self._unread:
                self._go_on()
            elif self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()
        return message

    async def send(self, message: Any) -> None:
        """The application's answer."""
        await super().send(message)
        if self.close_sent:
            # Else uvicorn logs an error for each handshake that was refused.
            self.handshake_complete = True

    def resume_writing(self) -> None:
        """The client has taken what was sent."""
        super().resume_writing()
        if self._unread:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what was not read."""
        super().connection_lost(exc)
        self._unread.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def handle_cont(self, event: Frame) -> None:
        """A fragment, or the end of a message."""
        if self._counts(event.fin):
            super().handle_cont(event)

    def handle_text(self, event: Frame) -> None:
        """A text message, or the beginning of one."""
        if self._counts(event.fin):
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """A binary message, or the beginning of one."""
        if self._counts(event.fin):
            super().handle_bytes(event)

    def handle_ping(self) -> None:
        """A ping; its answer is ready."""
        if self._counts(False):
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """A pong, asked for or not."""
        if self._counts(False):
            super().handle_pong(event)

    def _counts(self, is_message: bool) -> bool:
        """Count a frame; False if it is not to be handled. A message is counted by who answers it."""
        if self.transport.is_closing():
            return False
        self._frames += 1
        if is_message and not self.close_sent:
            return True
        if (self._extra.take() and self._allowance.take()) or self._grace.take():
            return True
        text = f"more than {self._limits.frame_rate:g} frames a second"
        _warn.warning(log, "a connection was closed: control frames and fragments, " + text)
        self.conn.fail(1008, text)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1008, "reason": text})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
        return False


class _Flow(FlowControl):
    """uvicorn's switch for reading, which stays off while `held`."""

    held = False

    def resume_reading(self) -> None:
        """Read on, unless something that was read has still to be handed on."""
        if not self.held:
            super().resume_reading()


class GuardedHttp(H11Protocol):
    """One HTTP connection. `request_timeout` bounds the time for a request's headers, and again for its body."""

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits: Limits = config.limits
        self._waiting: OrderedDict[GuardedHttp, None] = config.waiting
        self._awaited: Any = None
        self._deadline: asyncio.TimerHandle | None = None
        self._unread = bytearray()
        self._turn: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The clock starts before the first byte."""
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what was not read."""
        self._stop_watching()
        self._unread.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if len(data) <= _SMALL and not self._unread:
            super().data_received(data)
            self._watch()
            return
        self._unread += data
        if self._turn is None:
            self._read_on()

    def _read_on(self) -> None:
        """Hand on what has arrived up to the end of a request; of a body in chunks a piece in each turn."""
        self._turn = None
        while self._unread and not self.transport.is_closing():
            state = self.conn.their_state
            if state not in (h11.IDLE, h11.SEND_BODY):
                break  # the rest is for the next request
            is_whole = state is h11.SEND_BODY and any(name == b"content-length" for name, _ in self.headers)
            size = len(self._unread) if is_whole else _SMALL
            piece = bytes(self._unread[:size])
            del self._unread[:size]
            super().data_received(piece)
            if self.transport.get_protocol() is not self:
                return  # it is a WebSocket now
            if state is h11.SEND_BODY and not is_whole:
                self._go_on()
                break
        self._watch()
        was_held, self._flow.held = self._flow.held, bool(self._unread)
        if self._unread:
            self._flow.read_paused = True
            self.transport.pause_reading()
        elif was_held and (self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT):
            self._flow.resume_reading()

    def _go_on(self) -> None:
        if self._turn is None:
            self._turn = self.loop.call_soon(self._read_on)

    def on_response_complete(self) -> None:
        """The next request may be there already."""
        super().on_response_complete()
        if self._unread:
            self._go_on()
        elif self.conn.trailing_data[0]:
            self._watch()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """The connection is a WebSocket from here on."""
        self._stop_watching()
        self._unread.clear()
        super().handle_websocket_upgrade(event)

    def _watch(self) -> None:
        """Set the clock when headers or a body are awaited, and stop it when they are there."""
        state = self.conn.their_state
        is_over = self.transport.is_closing() or self.transport.get_protocol() is not self
        if is_over or state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_watching()
        elif state is not self._awaited:
            self._stop_watching()
            self._awaited = state
            self._waiting[self] = None
            self._deadline = self.loop.call_later(self._limits.request_timeout, self._give_up)

    def _stop_watching(self) -> None:
        self._awaited = None
        self._waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        """The request did not come in time."""
        self._stop_watching()
        self.transport.close()
