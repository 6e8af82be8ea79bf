"""Clients that speak HTTP and WebSocket byte by byte, and may leave out, repeat or cut anything."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0


def handshake(port: int, path: str = "/ws", extra: str = "") -> bytes:
    """The bytes that open a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    ).encode()


def frame(opcode: int, payload: bytes = b"", is_last: bool = True) -> bytes:
    """A masked frame (RFC 6455, section 5.2); with a mask of zeros the payload stands as it is."""
    head, size = bytes([is_last << 7 | opcode]), len(payload)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += b"\xfe" + struct.pack(">H", size)
    else:
        head += b"\xff" + struct.pack(">Q", size)
    return head + bytes(4) + payload


def connect(port: int, timeout: float = 20.0) -> socket.socket:
    """A TCP connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=timeout)


@contextlib.contextmanager
def websocket(port: int, path: str = "/ws", extra: str = "") -> Iterator[socket.socket]:
    """A WebSocket after its handshake."""
    with connect(port) as raw:
        raw.sendall(handshake(port, path, extra))
        answer = read_head(raw)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        yield raw


def read_head(raw: socket.socket) -> bytes:
    """The head of a response; what there is of it if the server closes."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        more = raw.recv(1)
        if not more:
            break
        answer += more
    return answer


def read_frame(raw: socket.socket) -> tuple[int, bytes]:
    """Opcode and payload of the server's next frame. Raises ConnectionError if the connection ends instead."""
    head = _exactly(raw, 2)
    size = head[1] & 127
    if size == 126:
        size = struct.unpack(">H", _exactly(raw, 2))[0]
    elif size == 127:
        size = struct.unpack(">Q", _exactly(raw, 8))[0]
    return head[0] & 15, _exactly(raw, size)


def close_code(raw: socket.socket) -> int:
    """The code with which the server closes, whatever frames come before."""
    while True:
        opcode, payload = read_frame(raw)
        if opcode == CLOSE:
            code: int = struct.unpack(">H", payload[:2])[0]
            return code


def is_cut_off(raw: socket.socket) -> bool:
    """True once the server closes the connection; what it sends before is thrown away."""
    try:
        while raw.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def send_all(raw: socket.socket, data: bytes) -> None:
    """Send what the server takes; that it closes meanwhile is no fault."""
    with contextlib.suppress(OSError):
        raw.sendall(data)


class Flood:
    """`connections` WebSockets that send `data` over and over, each in a thread, until the end of the block.

    One that is cut off comes back a fifth of a second later.
    """

    def __init__(self, port: int, data: bytes, connections: int = 1) -> None:
        self._port = port
        self._data = data
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(connections)]
        self._begun = threading.Semaphore(0)

    def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError, AssertionError), websocket(self._port) as raw:
                raw.settimeout(1.0)
                self._begun.release()
                while not self._over.is_set():
                    raw.sendall(self._data)
            self._over.wait(0.2)

    def __enter__(self) -> Flood:
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            self._begun.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def _exactly(raw: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = raw.recv(size - len(data))
        if not more:
            raise ConnectionError("the server closed the connection")
        data += more
    return data
