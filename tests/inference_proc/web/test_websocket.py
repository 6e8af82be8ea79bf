"""The WebSocket transport, over a real socket."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from server_kit import (
    ask,
    assert_silent,
    browser_observation,
    receive,
    simulator_observation,
)
from websockets.exceptions import ConnectionClosed, InvalidStatus

GOOD = {"type": "ping", "messageId": "good"}

HOSTILE: list[str | bytes] = [
    "",
    " ",
    "not json",
    "{",
    '{"type":"ping"',
    '{"type":"ping"} trailing',
    "null",
    "true",
    "17",
    '"text"',
    "[]",
    '[{"type":"ping"}]',
    "{}",
    '{"type":null}',
    '{"type":7}',
    '{"type":["ping"]}',
    '{"type":"no_such_type"}',
    '{"type":"' + "x" * 100_000 + '"}',
    '{"type":"ping","messageId":7}',
    '{"type":"ping","messageId":"' + "m" * 10_000 + '"}',
    '{"type":"ping","timestamp":"now"}',
    '{"type":"ping","timestamp":NaN}',
    '{"type":"ping","timestamp":Infinity}',
    '{"type":"ping","timestamp":1e999}',
    '{"type":"ping","clientId":{}}',
    '{"type":"observation_data"}',
    '{"type":"observation_data","data":null}',
    '{"type":"observation_data","data":[]}',
    '{"type":"observation_data","data":"x"}',
    '{"type":"observation_data","data":{}}',
    '{"type":"observation_data","data":' + "[" * 5000 + "]" * 5000 + "}",
    "[" * 100_000,
    '{"a":' * 50_000,
    '{"type":"observation_data","data":{"timestamp":1' + "0" * 5000 + "}}",
    '{"type":"ping","messageId":"\\ud800"}',
    '{"type":"\\u0000"}',
    b"\xff\xfe\x00",
    b'{"type":"\xff"}',
    b"",
    '{"type":"reset_nn","data":{"confirm":"yes"}}',
    '{"type":"reset_nn","data":[true]}',
    '{"type":"reconnect"}',
    '{"type":"reconnect","data":{"clientId":7}}',
    '{"type":"queen_death","data":{"queenId":"q","generation":0}}',
    '{"type":"queen_success","data":{"queenId":"q","generation":1e30,"survivalTime":1}}',
    '{"type":"game_outcome","data":{"player_won":"yes","survival_time":-1}}',
    '{"type":"learning_progress_request","data":{}}',
    "\ufeff" + '{"type":"ping"}',
]


def test_every_hostile_frame_gets_one_error_and_the_connection_lives_on(server: Any) -> None:
    """A bad frame is answered with exactly one error frame, and the next good request is answered right."""
    with server.connect() as client:
        for frame in HOSTILE:
            reply = ask(client, frame)
            assert reply["type"] == "error", frame[:80]
            assert reply["data"]["status"] == "error"
            assert reply["data"]["errorCode"] in ("VALIDATION_ERROR", "DESERIALIZATION_ERROR", "MISSING_DATA")
            assert reply["data"]["retryable"] is False
            assert reply["messageId"]
            assert reply["clientId"].startswith("anonymous-")
            assert ask(client, GOOD)["type"] == "pong"


def test_pipelined_requests_are_answered_in_their_order(server: Any) -> None:
    """Replies come one for one in request order, whatever kinds of requests are mixed, however many are sent ahead."""
    frames: list[str] = []
    expected: list[str] = []
    for number in range(300):
        identity = f"m{number}"
        kinds: list[dict[str, Any] | str] = [
            browser_observation(messageId=identity),
            {"type": "ping", "messageId": identity},
            {"type": "nonsense", "messageId": identity},
            {"type": "spawn_result", "success": False, "spawnChunk": 399, "spawnType": "combat", "messageId": identity},
            {"type": "heartbeat_response", "messageId": identity},
            simulator_observation(number, messageId=identity),
        ]
        kind = kinds[number % len(kinds)]
        frames.append(json.dumps(kind))
        if number % len(kinds) not in (3, 4):
            expected.append(identity)
    with server.connect() as client:
        for frame in frames:
            client.send(frame)
        assert [receive(client)["messageId"] for _ in expected] == expected
        assert_silent(client)


def test_an_anonymous_connection_is_never_sent_anything_unasked(start_server: Callable[..., Any]) -> None:
    """Neither a greeting nor a heartbeat goes out on /ws, while a named client of the same server gets both."""
    server = start_server(limits={"heartbeat_interval": 0.02})
    with server.connect("/ws") as anonymous, server.connect("/ws/game_client_1") as named:
        for _ in range(5):
            receive(named)
        with pytest.raises(TimeoutError):
            anonymous.recv(timeout=0.05)
        assert_silent(anonymous)


def test_a_named_client_is_greeted_and_hears_heartbeats(start_server: Callable[..., Any]) -> None:
    """On /ws/{client_id} the first frame is reconnect_confirmation, then come heartbeats; no answer gets a reply."""
    server = start_server(limits={"heartbeat_interval": 0.05})
    with server.connect("/ws/game_client_1769000000000") as client:
        greeting = receive(client)
        assert greeting["type"] == "reconnect_confirmation"
        assert greeting["data"] == {
            "clientId": "game_client_1769000000000",
            "status": "reconnected",
            "queuedMessages": 0,
        }
        for _ in range(3):
            heartbeat = receive(client)
            assert heartbeat["type"] == "heartbeat"
            assert heartbeat["data"] == {"status": "alive"}
            client.send(json.dumps({"type": "heartbeat_response", "timestamp": time.time()}))


def test_a_handler_that_raises_answers_with_a_processing_error(
    start_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in a handler becomes one retryable PROCESSING_ERROR under the request's id, and life goes on."""
    server = start_server()

    def fail(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setitem(server.service.handler._answers, "ping", fail)
    with server.connect() as client:
        reply = ask(client, GOOD)
        assert reply["messageId"] == "good"
        assert reply["data"]["errorCode"] == "PROCESSING_ERROR"
        assert reply["data"]["retryable"] is True
        assert "bug" not in reply["data"]["error"]
        assert ask(client, browser_observation())["type"] in ("spawn_decision", "no_action")
    assert "a bug" in caplog.text


def test_connections_are_bounded(start_server: Callable[..., Any], wait_until: Callable[..., Any]) -> None:
    """Beyond the limit a handshake is refused with 503; when somebody leaves, there is room again."""
    server = start_server(limits={"connections": 2})
    with server.connect() as first:
        with server.connect(), pytest.raises(InvalidStatus) as refused:
            server.connect()
        assert refused.value.response.status_code == 503
        assert_silent(first)
        wait_until(lambda: len(server.service.connections) == 1, "the second connection is forgotten")
        with server.connect() as second:
            assert_silent(second)
    assert server.service.connections.refused == 1


def test_a_frame_beyond_the_size_limit_closes_with_1009(start_server: Callable[..., Any]) -> None:
    """A frame larger than the limit is not held in memory: its connection is closed cleanly, others notice nothing."""
    server = start_server(limits={"frame_bytes": 10_000})
    with server.connect() as bystander, server.connect() as client:
        client.send("x" * 20_000)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        assert_silent(bystander)


def test_a_text_frame_that_is_not_utf8_closes_with_1007(server: Any, wait_until: Callable[..., Any]) -> None:
    """Invalid UTF-8 in a text frame ends the connection as the WebSocket standard demands; the server goes on."""
    with server.connect() as client:
        client.send(b"\xff\xfe", text=True)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1007
    with server.connect() as client:
        assert_silent(client)


def test_too_many_frames_a_second_are_refused_one_by_one(start_server: Callable[..., Any]) -> None:
    """A frame beyond the allowance gets one retryable CONNECTION_ERROR under its own id, in order."""
    server = start_server(limits={"frame_rate": 0.001, "frame_burst": 3})
    with server.connect() as client:
        replies = [ask(client, {"type": "ping", "messageId": f"m{number}"}) for number in range(6)]
    assert [reply["type"] for reply in replies] == ["pong"] * 3 + ["error"] * 3
    assert [reply["messageId"] for reply in replies] == [f"m{number}" for number in range(6)]
    assert replies[-1]["data"]["errorCode"] == "CONNECTION_ERROR"
    assert replies[-1]["data"]["retryable"] is True


@pytest.mark.parametrize("client_id", ["x" * 129, "%20" * 129])
def test_an_overlong_client_id_is_refused(server: Any, client_id: str) -> None:
    """A client id of more than 128 characters is refused at the handshake."""
    with pytest.raises(InvalidStatus) as refused:
        server.connect(f"/ws/{client_id}")
    assert refused.value.response.status_code == 400


def test_clients_that_vanish_leave_nothing(server: Any, wait_until: Callable[..., Any]) -> None:
    """Connections that are cut without a close frame, in the middle of a frame or of the handshake, are forgotten."""
    for payload in (b"", b"GET /ws HTTP/1.1\r\nHost: x\r\n", b"\x00\xff garbage \r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(payload)
    for _ in range(20):
        with server.connect() as client:
            client.send(json.dumps(browser_observation()))
            client.socket.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: len(server.service.connections) == 0, "every vanished connection is forgotten")
    with server.connect() as client:
        assert_silent(client)


def handshake(port: int) -> bytes:
    """The bytes that open a WebSocket."""
    return (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def masked(text: bytes) -> bytes:
    """A short text frame as a client sends it."""
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def test_a_thousand_connections_that_vanish_are_not_noticed(server: Any, wait_until: Callable[..., Any]) -> None:
    """A thousand clients open a connection, ask and are gone; one that stays gets every answer, and nothing is left."""
    frame = masked(b'{"type":"ping"}')
    with server.connect() as patient:
        for number in range(1000):
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                raw.sendall(handshake(server.port) + frame * (number % 4))
            if number % 50 == 0:
                assert ask(patient, browser_observation())["type"] == "spawn_decision"
        assert_silent(patient)
        wait_until(lambda: len(server.service.connections) == 1, "every vanished connection is forgotten")


def test_a_hundred_clients_that_never_read_are_not_noticed(server: Any) -> None:
    """A hundred clients ask and take no answer, until the server stops reading from them; others are served."""
    burst = masked(b'{"type":"health_check"}') * 2000
    deaf = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    try:
        for raw in deaf:
            raw.sendall(handshake(server.port))
            raw.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                raw.send(burst)
        with server.connect() as other:
            for _ in range(20):
                assert ask(other, browser_observation())["type"] == "spawn_decision"
    finally:
        for raw in deaf:
            raw.close()


def test_a_client_that_never_reads_stops_only_itself(server: Any) -> None:
    """The server stops reading from a client that does not take its answers, and goes on serving the others."""
    frame = masked(b'{"type":"health_check"}')
    with socket.create_connection(("127.0.0.1", server.port)) as deaf, server.connect() as other:
        deaf.sendall(handshake(server.port))
        deaf.settimeout(1.0)
        with pytest.raises(TimeoutError):
            deaf.sendall(frame * 5_000_000)
        for _ in range(20):
            assert_silent(other)


def test_a_client_that_never_reads_is_cut_off(start_server: Callable[..., Any], wait_until: Callable[..., Any]) -> None:
    """After `write_timeout` without taking an answer its connection is closed, though its system goes on acknowledging;
    a client that is merely silent stays."""
    server = start_server(limits={"write_timeout": 0.5})
    with socket.create_connection(("127.0.0.1", server.port)) as deaf, server.connect() as other:
        deaf.sendall(handshake(server.port))
        deaf.settimeout(0.5)
        with pytest.raises((TimeoutError, ConnectionError)):
            deaf.sendall(masked(b'{"type":"health_check"}') * 5_000_000)
        wait_until(lambda: len(server.service.connections) == 1, "the deaf client's connection is closed", 60)
        assert_silent(other)


def test_binary_frames_with_json_are_understood(server: Any) -> None:
    """A request in a binary frame is answered like any other, with a text frame."""
    with server.connect() as client:
        assert ask(client, json.dumps(GOOD).encode())["type"] == "pong"
