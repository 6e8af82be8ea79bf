"""What stands between a socket and the application in the bundled server: no client can have the event loop to itself.

A message that arrives alone is handled at once. Whatever else arrives waits in a rota, which hands it to the parsers
piece by piece and takes a fraction of a millisecond of each turn of the loop, however many clients send however much:
a flood of tiny frames or chunks delays those who flood. Every WebSocket frame counts against the connection's
allowance: messages in `connection.py`, which refuses them one by one, control frames and fragments here, where too many
of them end the connection with 1008. An HTTP request that does not arrive in time ends its connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from ...shared.rate_limit import RateLimit
from .limits import ALLOWANCE, Allowance, Limits

log = logging.getLogger(__name__)

_PIECE = 128
"""Bytes handed on at first: 21 of the smallest frames."""
_LARGEST_PIECE = 4096
_CHUNKS = 256
"""Bytes of a request handed on at once: 42 of the smallest chunks."""
_FRAMES_PER_TURN = 16
_EXTRA_BURST = 1000.0
"""Control frames and fragments at once: a megabyte in fragments of a kilobyte."""
_MESSAGES_QUEUED = 4
"""Messages parsed ahead of the application, which answers as many in a turn."""

_ROTA_TIME = 0.0002
"""Seconds of each turn of the event loop."""

_warn = RateLimit(10.0)


class Rota:
    """Connections with something unread, each of which gets its turn."""

    def __init__(self) -> None:
        self._waiting: deque[GuardedHttp | GuardedWebSocket] = deque()
        self._is_due = False

    def add(self, connection: GuardedHttp | GuardedWebSocket) -> None:
        """Have `connection.read_on` called when it is its turn."""
        self._waiting.append(connection)
        if not self._is_due:
            self._is_due = True
            connection.loop.call_soon(self._serve, connection.loop)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_due = False
        until = time.perf_counter() + _ROTA_TIME
        # Who joins meanwhile comes in the next turn at the earliest: others want theirs, too.
        for _ in range(len(self._waiting)):
            self._waiting.popleft().read_on()
            if time.perf_counter() > until:
                break
        if self._waiting and not self._is_due:
            self._is_due = True
            loop.call_soon(self._serve, loop)


class GuardedConfig(uvicorn.Config):
    """uvicorn's configuration with these protocols and the limits that they keep to."""

    def __init__(self, app: Any, limits: Limits, **settings: Any) -> None:
        super().__init__(app, http=GuardedHttp, ws=GuardedWebSocket, **settings)
        self.limits = limits
        self.waiting: OrderedDict[GuardedHttp, None] = OrderedDict()
        """Connections whose request is not complete, the longest waiting first."""
        self.rota = Rota()


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
        self._rota: Rota = config.rota
        self._unread = bytearray()
        self._piece = _PIECE
        self._frames = 0
        self._is_listed = False
        self._is_between_frames = True

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; the first ones are the handshake, which uvicorn has read already."""
        if not self.handshake_initiated:
            super().data_received(data)
            return
        if self._is_between_frames and not self._unread and _is_one_frame(data) and self._may_read():
            super().data_received(data)
            return
        self._is_between_frames = False
        self._unread += data
        self._stop_reading()
        self._go_on()

    def _may_read(self) -> bool:
        return self.writable.is_set() and (self.close_sent or self.queue.qsize() < _MESSAGES_QUEUED)

    def _stop_reading(self) -> None:
        self.read_paused = True
        self.transport.pause_reading()

    def read_on(self) -> None:
        """Hand on some of what has arrived."""
        self._is_listed = False
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
            self._go_on()
        elif self.queue.empty():
            self._read_more()

    def _go_on(self) -> None:
        if not self._is_listed and self._may_read():
            self._is_listed = True
            self._rota.add(self)

    def _read_more(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    async def receive(self) -> Any:
        """The application's next event; once it has them all, more is read."""
        message = await self.queue.get()
        if self.queue.empty():
            if self._unread:
                self._go_on()
            else:
                self._read_more()
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


def _is_one_frame(data: bytes) -> bool:
    """True if `data`, which begins with a frame of a client, is exactly that frame."""
    if len(data) < 6:
        return False
    size = data[1] & 127
    if size < 126:
        return len(data) == size + 6
    if size == 126:
        return len(data) == int.from_bytes(data[2:4], "big") + 8
    return len(data) == int.from_bytes(data[2:10], "big") + 14


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
        self._rota: Rota = config.rota
        self._unread = bytearray()
        self._is_listed = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The clock starts before the first byte."""
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what was not read."""
        self._stop_watching()
        self._unread.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if len(data) <= _CHUNKS and not self._unread:
            super().data_received(data)
            self._watch()
            return
        self._unread += data
        if not self._is_listed:
            self.read_on()

    def read_on(self) -> None:
        """Hand on what has arrived up to the end of a request; of a body in chunks a piece in each turn."""
        self._is_listed = False
        while self._unread and not self.transport.is_closing():
            state = self.conn.their_state
            if state not in (h11.IDLE, h11.SEND_BODY):
                break  # the rest is for the next request
            is_whole = state is h11.SEND_BODY and any(name == b"content-length" for name, _ in self.headers)
            size = len(self._unread) if is_whole else _CHUNKS
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
        if not self._is_listed:
            self._is_listed = True
            self._rota.add(self)

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
