"""No client has the event loop to itself, and none keeps a connection without saying what it wants."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from raw_client import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_code,
    connect,
    frame,
    handshake,
    is_cut_off,
    read_frame,
    read_head,
    send_all,
    websocket,
)
from server_kit import ask, assert_silent, browser_observation

ASK = b'{"type":"ping"}'
GET = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

FLOODS = {
    "pings": frame(PING) * 100,
    "pings with a payload": frame(PING, b"x" * 125) * 100,
    "pongs that nobody asked for": frame(PONG) * 100,
    "empty continuations": frame(TEXT, b"", False) + frame(CONTINUATION, b"", False) * 100,
    "fragments of one byte": frame(BINARY, b"[", False) + frame(CONTINUATION, b"[", False) * 100,
    "messages of two fragments": (frame(TEXT, b"{", False) + frame(CONTINUATION, b"}")) * 100,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_every_frame_counts(start_server: Callable[..., Any], flood: bytes) -> None:
    """Control frames and fragments beyond the allowance close their connection with 1008, and nobody else's."""
    server = start_server(limits={"frame_rate": 0.001, "frame_burst": 40})
    with server.connect() as bystander, websocket(server.port) as raw:
        send_all(raw, flood)
        assert close_code(raw) == 1008
        assert_silent(bystander)


def test_messages_and_other_frames_share_one_allowance(start_server: Callable[..., Any]) -> None:
    """Ten frames are allowed: after eight pings two messages are answered, and the third is refused."""
    server = start_server(limits={"frame_rate": 0.001, "frame_burst": 10})
    with websocket(server.port) as raw:
        raw.sendall(frame(PING) * 8 + frame(TEXT, ASK) * 3)
        found = [read_frame(raw) for _ in range(11)]
    assert [opcode for opcode, _ in found] == [PONG] * 8 + [TEXT] * 3
    assert [json.loads(payload)["type"] for _, payload in found[8:]] == ["pong", "pong", "error"]


def test_a_client_that_asks_too_much_may_still_answer_pings(start_server: Callable[..., Any]) -> None:
    """Who is refused message by message is not cut off for the pings and pongs that belong to every connection."""
    server = start_server(limits={"frame_rate": 0.001, "frame_burst": 2})
    with websocket(server.port) as raw:
        raw.sendall(frame(TEXT, ASK) * 5 + frame(PING, b"there?") + frame(PONG) + frame(TEXT, ASK))
        found = [read_frame(raw) for _ in range(7)]
    assert sorted(opcode for opcode, _ in found) == [TEXT] * 6 + [PONG]


@pytest.mark.parametrize("sizes", [(1,), (7, 128, 129), (4096,), (250_000,)], ids=str)
def test_messages_arrive_whole_however_they_are_cut(start_server: Callable[..., Any], sizes: tuple[int, ...]) -> None:
    """Large messages and small ones, in fragments or not, cut anywhere on the way, are answered one by one in order."""
    server = start_server()
    long = json.dumps({"type": "ping", "messageId": "long", "clientId": "x" * 200_000}).encode()
    stream = frame(TEXT, ASK)
    stream += frame(TEXT, long[:1000], False) + frame(PING, b"between") + frame(CONTINUATION, long[1000:])
    stream += b"".join(frame(TEXT, json.dumps({"type": "ping", "messageId": f"m{n}"}).encode()) for n in range(50))
    with websocket(server.port) as raw:
        at, number = 0, 0
        while at < len(stream):
            size = sizes[number % len(sizes)] if at < 600 or max(sizes) > 1000 else 5000
            raw.sendall(stream[at : at + size])
            at, number = at + size, number + 1
        found = [read_frame(raw) for _ in range(53)]
    messages = [json.loads(payload)["messageId"] for opcode, payload in found if opcode == TEXT]
    assert messages[1:] == ["long", *(f"m{n}" for n in range(50))]
    assert [payload for opcode, payload in found if opcode == PONG] == [b"between"]


def take_everything(raw: socket.socket) -> None:
    """Read until the connection ends."""
    with contextlib.suppress(OSError):
        while raw.recv(65536):
            pass


def largest_turn(server: Any, is_over: Callable[[], bool]) -> float:
    """The largest part that one turn of the server's loop had in all its turns that did anything until `is_over`.

    In processor time of the loop's thread: what other threads and processes do meanwhile does not count.
    """
    loop, turns, ended = server.service._beats.get_loop(), [], threading.Event()
    last = [0.0]

    def turn() -> None:
        now = time.thread_time()
        turns.append(now - last[0])
        last[0] = now
        if is_over():
            ended.set()
        else:
            loop.call_soon(turn)

    def begin() -> None:
        last[0] = time.thread_time()
        loop.call_soon(turn)

    loop.call_soon_threadsafe(begin)
    assert ended.wait(60)
    busy = [spent for spent in turns if spent > _IDLE]
    return max(busy) / sum(busy)


_IDLE = 1e-4
"""Seconds: a turn in which nothing is read takes less."""


def test_others_are_served_while_a_flood_of_frames_is_read(start_server: Callable[..., Any]) -> None:
    """Forty thousand pings that are within the allowance are read in many turns, in which others have theirs."""
    server = start_server(limits={"frame_rate": 1e9, "frame_burst": 1e9})
    with websocket(server.port) as raw, server.connect() as other:
        peer = f"127.0.0.1:{raw.getsockname()[1]}"

        def is_read() -> bool:
            listed = server.service.connections.to_dict()["connections"]
            return any(one["peer"] == peer and one["frames"] for one in listed)

        threading.Thread(target=send_all, args=(raw, frame(PING) * 40_000 + frame(TEXT, ASK))).start()
        reading = threading.Thread(target=take_everything, args=(raw,))
        reading.start()
        assert largest_turn(server, is_read) < 0.25
        assert ask(other, browser_observation())["type"] in ("spawn_decision", "no_action")
        raw.shutdown(socket.SHUT_RDWR)
        reading.join()


def test_others_are_served_while_a_body_in_tiny_chunks_is_read(start_server: Callable[..., Any]) -> None:
    """So are forty thousand chunks of one byte, and the body is whole."""
    server = start_server()
    over = threading.Event()
    body = b'{"logs":[' + b" " * 40_000 + b"]}"
    head = b"POST /logs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = []
    with connect(server.port) as raw:

        def flood() -> None:
            stream = head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n" + GET
            threading.Thread(target=send_all, args=(raw, stream)).start()
            answer.append(read_head(raw))
            answer.append(read_head(raw))
            over.set()

        threading.Thread(target=flood).start()
        assert largest_turn(server, over.is_set) < 0.25
    assert answer[0].startswith(b"HTTP/1.1 204")
    assert answer[1].startswith(b"HTTP/1.1 200")


def test_requests_sent_ahead_are_all_answered(server: Any) -> None:
    """Five hundred requests at once, some with a body, get five hundred answers."""
    post = b'POST /logs HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n{"logs":[]}'
    refused = b"POST /api/training/pause HTTP/1.1\r\nHost: evil\r\nContent-Length: 3\r\n\r\nabc"
    with connect(server.port) as raw:
        threading.Thread(target=send_all, args=(raw, (GET + post + refused) * 500)).start()
        received = b""
        while received.count(b"HTTP/1.1 ") < 1500 or not received.endswith(b"}"):
            more = raw.recv(65536)
            assert more
            received += more
    assert [received.count(b"HTTP/1.1 " + status) for status in (b"200", b"204", b"403")] == [500, 500, 500]


UNFINISHED = {
    "nothing": b"",
    "half a request line": b"GET /liv",
    "headers without an end": b"GET /livez HTTP/1.1\r\nHost: x\r\nX-a: ",
    "half a body": b"POST /logs HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
    "chunks without an end": b"POST /logs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    "half of the next request": GET + b"GET /liv",
    "half a handshake": handshake(1)[:-2],
}


@pytest.mark.parametrize("begun", UNFINISHED.values(), ids=UNFINISHED)
def test_an_unfinished_request_times_out(start_server: Callable[..., Any], begun: bytes) -> None:
    """A connection without a complete request ends, though a byte comes every now and then."""
    server = start_server(limits={"request_timeout": 0.3})
    with connect(server.port) as raw, connect(server.port) as dripping:
        raw.sendall(begun)
        dripping.sendall(begun)
        over = threading.Event()

        def drip() -> None:
            drop = b"X-a: b\r\n" if b"X-a" in begun else b"a"
            with contextlib.suppress(OSError):
                while begun and b"chunked" not in begun and not over.wait(0.05):
                    dripping.sendall(drop)

        thread = threading.Thread(target=drip)
        thread.start()
        assert is_cut_off(raw)
        assert is_cut_off(dripping)
        over.set()
        thread.join()


def test_endless_headers_are_bounded(server: Any) -> None:
    """Headers that never end are refused long before the time is up."""
    with connect(server.port) as raw:
        raw.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        send_all(raw, b"X-a: b\r\n" * 100_000)
        with contextlib.suppress(ConnectionError):
            assert read_head(raw)[9:12] in (b"400", b"431")
        assert is_cut_off(raw)


def test_what_has_asked_in_time_is_not_cut_off(start_server: Callable[..., Any]) -> None:
    """WebSockets and connections that are used again live longer than a request may take to arrive."""
    server = start_server(limits={"request_timeout": 0.2})
    with server.connect() as client, connect(server.port) as raw:
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            raw.sendall(GET)
            assert read_head(raw).startswith(b"HTTP/1.1 200")
            raw.recv(65536)
            assert_silent(client)


def test_refused_handshakes_and_broken_requests_leave_no_line_each(
    start_server: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred clients that are turned away, send nonsense or vanish in a body fill no log."""
    server = start_server()
    with caplog.at_level("WARNING"):
        for payload in (
            handshake(server.port, extra="Origin: http://evil.example\r\n"),
            b"nonsense\r\n\r\n",
            b"POST /logs HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
            handshake(server.port) + frame(TEXT, b"\xff"),
        ):
            for _ in range(25):
                with connect(server.port) as raw:
                    raw.sendall(payload)
                    if b"POST" not in payload:
                        read_head(raw)
        with server.connect() as client:
            assert_silent(client)
    assert len(caplog.records) <= 5, [record.getMessage() for record in caplog.records]
