"""Who may connect, and who may change the instance."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_client import connect, handshake, read_head
from server_kit import ask, assert_silent
from tandem.inference_proc.web.access import Access, BadToken, is_loopback, read_token
from tandem.shared.errors import ConfigError
from websockets.exceptions import InvalidStatus

CHANGES = [
    ("GET", "/reset-nn"),
    ("POST", "/reset-nn"),
    ("POST", "/api/training/pause"),
    ("POST", "/api/training/resume"),
    ("POST", "/api/training/checkpoint"),
    ("POST", "/api/training/rollback"),
    ("POST", "/api/training/reload"),
    ("POST", "/api/nn-dashboard/reset"),
]


def scope(**headers: str) -> dict[str, Any]:
    """An ASGI scope with these headers; underscores stand for dashes."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": raw}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_loopback_addresses_are_known(host: str, expected: bool) -> None:
    """Only addresses that cannot be reached from elsewhere count as this machine."""
    assert is_loopback(host) is expected


def test_on_loopback_without_a_token_this_machine_may_change() -> None:
    """Programs and the server's own page may; pages of other sites may not, by whatever way they ask."""
    access = Access("127.0.0.1", ["http://localhost:3010"])
    assert access.may_change(scope(host="127.0.0.1:8010"))
    assert access.may_change(scope(host="localhost:8010", origin="http://localhost:8010"))
    assert access.may_change(scope(host="[::1]:8010", origin="http://[::1]:8010"))
    assert access.may_change(scope(host="127.0.0.1:8010", origin="http://localhost:3010"))
    assert not access.may_change(scope(host="127.0.0.1:8010", origin="http://evil.example"))
    assert not access.may_change(scope(host="127.0.0.1:8010", origin="null"))
    assert not access.may_change(scope(host="127.0.0.1:8010", origin="http://[bad"))
    # An image or a link on another site's page: no Origin, but the browser says so.
    assert not access.may_change(scope(host="127.0.0.1:8010", sec_fetch_site="cross-site"))
    # A name that was made to resolve to this machine.
    assert not access.may_change(scope(host="evil.example:8010", origin="http://evil.example:8010"))
    assert not access.may_change(scope(host="evil.example:8010"))


def test_on_another_address_only_the_token_may_change() -> None:
    """Without a token configured nobody may; with one, only who shows exactly it."""
    assert not Access("0.0.0.0", []).may_change(scope(host="10.0.0.5:8010"))
    assert not Access("0.0.0.0", []).may_change(scope(host="10.0.0.5:8010", authorization="Bearer "))
    access = Access("0.0.0.0", [], "s3cret")
    assert access.may_change(scope(host="10.0.0.5:8010", authorization="Bearer s3cret"))
    assert access.may_change(scope(host="10.0.0.5:8010", authorization="bearer s3cret"))
    for shown in ("Bearer s3cre", "Bearer s3crets", "Bearer", "Basic s3cret", "s3cret", "Bearer \u00e9", ""):
        assert not access.may_change(scope(host="10.0.0.5:8010", authorization=shown)), shown
    assert not access.may_change(scope(host="10.0.0.5:8010"))


def test_a_configured_token_is_needed_on_loopback_too() -> None:
    """Who sets a token wants it asked for."""
    assert not Access("127.0.0.1", [], "s3cret").may_change(scope(host="127.0.0.1:8010"))


def test_the_token_comes_from_the_environment_or_a_private_file(tmp_path: Path) -> None:
    """A file that others may read, an empty one and a missing one are refused, without showing the token."""
    path = tmp_path / "token"
    assert read_token({}) == ""
    assert read_token({"TANDEM_TOKEN": "abc"}) == "abc"
    path.write_text("from-file\n")
    path.chmod(0o600)
    assert read_token({"TANDEM_TOKEN_FILE": str(path)}) == "from-file"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="0600") as refused:
        read_token({"TANDEM_TOKEN_FILE": str(path)})
    assert "from-file" not in str(refused.value)
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        read_token({"TANDEM_TOKEN_FILE": str(path)})
    with pytest.raises(ConfigError, match="empty"):
        read_token({"TANDEM_TOKEN": ""})
    with pytest.raises(ConfigError, match=re.escape("cannot be read")):
        read_token({"TANDEM_TOKEN_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize(
    "token",
    ["", " lead", "trail ", "line\nbreak", "tab\t", "nul\0", "\x7f", "x" * 4097],
    ids=lambda token: repr(token)[:12],
)
def test_a_token_that_no_header_can_carry_is_refused(tmp_path: Path, token: str) -> None:
    """From the environment, from a file and from a program; in one line, which never shows the token."""
    path = tmp_path / "token"
    path.write_text(token, newline="")
    path.chmod(0o600)
    ways = [lambda: read_token({"TANDEM_TOKEN": token}), lambda: read_token({"TANDEM_TOKEN_FILE": str(path)})]
    ways += [lambda: Access("127.0.0.1", [], token)] if token else []
    for way in ways:
        with pytest.raises(BadToken) as refused:
            way()
        assert "\n" not in str(refused.value)
        assert not token.strip() or token.strip() not in str(refused.value)


@pytest.mark.parametrize(
    "token", [b"s\xc3\xa9sam", b"\xff\xfe\x80", b"two words", b"caf\xe9", "密钥".encode()], ids=str
)
def test_tokens_are_compared_as_the_bytes_that_were_configured(tmp_path: Path, token: bytes) -> None:
    """Whatever their encoding, in a file or in the environment."""
    path = tmp_path / "token"
    path.write_bytes(token + b"\n")
    path.chmod(0o600)
    for configured in (
        read_token({"TANDEM_TOKEN_FILE": str(path)}),
        read_token({"TANDEM_TOKEN": os.fsdecode(token)}),
    ):
        access = Access("0.0.0.0", [], configured)
        shown = {"type": "http", "headers": [(b"host", b"h"), (b"authorization", b"Bearer " + token)]}
        assert access.may_change(shown)
        for wrong in (token + b"x", token[:-1], token.decode("latin-1").encode(), b""):
            shown["headers"][1] = (b"authorization", b"Bearer " + wrong)
            assert wrong == token or not access.may_change(shown)
        shown["headers"][1:] = [(b"authorization", b"Bearer " + token), (b"authorization", b"Bearer x")]
        assert not access.may_change(shown)


def test_a_token_of_any_bytes_works_over_http_and_websocket(start_server: Callable[..., Any]) -> None:
    """Over a real socket too, in both protocols."""
    server = start_server(token=os.fsdecode(b"s\xc3\xa9sam\xff"))
    header = b"Authorization: Bearer s\xc3\xa9sam\xff\r\n"
    with connect(server.port) as raw:
        raw.sendall(b"POST /api/training/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + header + b"\r\n")
        assert read_head(raw).startswith(b"HTTP/1.1 200")
    with connect(server.port) as raw:
        raw.sendall(handshake(server.port)[:-2] + header + b"\r\n")
        assert read_head(raw).startswith(b"HTTP/1.1 101")
    assert [one["trusted"] for one in trusted(server)] == [True]


def trusted(server: Any) -> list[dict[str, Any]]:
    """What the server thinks of its open connections."""
    return [{"trusted": connection.trusted} for connection in server.service.connections._open]


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("tandem.example", True),
        ("TANDEM.example.", True),
        ("tandem.example:8010", True),
        ("127.0.0.1:8010", True),
        ("127.0.0.1", False),
        ("127.0.0.1:80", False),
        ("[::1]:9", True),
        ("[0:0::1]", True),
        ("plain.example:80", True),
        ("plain.example", True),
        ("plain.example:81", False),
        ("evil.example", False),
        ("tandem.example.evil.example", False),
        ("[::1].evil.example", False),
        ("tandem.example@evil.example", False),
        ("tandem.example:", False),
        ("tandem.example:8010:8010", False),
        ("", False),
    ],
)
def test_only_allowed_hosts_are_served(host: str, allowed: bool) -> None:
    """Names and addresses in any spelling, with any port unless one is given; what is not well formed is no name."""
    access = Access("0.0.0.0", [], "", ["tandem.example", "127.0.0.1:8010", "::1", "plain.example:80"])
    assert access.allows_host(scope(host=host)) is allowed
    assert Access("0.0.0.0", []).allows_host(scope(host=host))


def test_a_request_without_one_host_is_not_served() -> None:
    """Neither a missing Host nor two of them."""
    access = Access("0.0.0.0", [], "", ["a.example", "b.example"])
    assert not access.allows_host(scope())
    assert not access.allows_host({"headers": [(b"host", b"a.example"), (b"host", b"b.example")]})


@pytest.mark.parametrize("entry", ["", "http://a.example", "a.example/", "a b", "[::1", "*", "a.example:port"])
def test_an_allowed_host_that_no_request_can_name_is_refused(entry: str) -> None:
    """At the start, by name."""
    with pytest.raises(ConfigError, match=re.escape(f"{entry!r} is no host")):
        Access("127.0.0.1", [], "", [entry])


def test_another_host_gets_health_and_nothing_else(start_server: Callable[..., Any]) -> None:
    """Every path and a WebSocket's handshake are refused with 403; the allowed name is served as ever."""
    server = start_server(inference={"allowed_hosts": ["tandem.example", "127.0.0.1"], "port": 0})
    other = {"host": f"evil.example:{server.port}"}
    for path in ("/", "/api/training/stats", "/dashboard", "/metrics", "/livez", "/no/such", "/health/", "//health"):
        assert server.get(path, headers=other).status_code == 403, path
    assert server.request("OPTIONS", "/logs", headers={**other, "origin": "http://localhost:3010"}).status_code == 403
    assert server.get("/health", headers=other).json()["status"] in ("healthy", "degraded")
    assert server.get("/api/training/stats", headers={"host": "tandem.example:1"}).status_code == 200
    with connect(server.port) as raw:
        raw.sendall(handshake(server.port).replace(b"Host: 127.0.0.1", b"Host: evil.example"))
        assert read_head(raw).startswith(b"HTTP/1.1 403")
    with server.connect() as client:
        assert_silent(client)


def test_what_a_browser_cannot_mean_is_no_local_name() -> None:
    """A name that begins like an address, two origins, or none that fits the host."""
    access = Access("127.0.0.1", ["http://localhost:3010"])
    assert not access.may_change(scope(host="[::1].evil.example"))
    assert not access.may_change(scope(host="127.0.0.1:8010:1"))
    twice = [(b"host", b"localhost"), (b"origin", b"http://evil.example"), (b"origin", b"http://localhost:3010")]
    assert not access.allows_origin({"headers": twice})


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_every_endpoint_that_changes_something_asks(
    start_server: Callable[..., Any], caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    """With a token configured each of them is 403 without it; the token is never logged."""
    server = start_server(token="s3cret-value")
    before = server.engine.control.get("command.sequence"), server.engine.control.get("command.pause")
    assert server.request(method, path).status_code == 403
    assert server.request(method, path, headers={"authorization": "Bearer wrong"}).status_code == 403
    assert (server.engine.control.get("command.sequence"), server.engine.control.get("command.pause")) == before
    assert server.get("/api/training/stats").status_code == 200
    if path in ("/reset-nn", "/api/training/pause"):
        assert server.request(method, path, headers={"authorization": "Bearer s3cret-value"}).status_code == 200
    assert "s3cret-value" not in caplog.text


def test_a_reset_over_a_websocket_asks_too(start_server: Callable[..., Any]) -> None:
    """reset_nn is refused to a connection that did not show the token when it was opened."""
    server = start_server(token="s3cret")
    frame = {"type": "reset_nn", "data": {"confirm": True}}
    with server.connect() as stranger:
        assert ask(stranger, frame)["data"]["errorCode"] == "RESET_ERROR"
    with server.connect(additional_headers={"authorization": "Bearer s3cret"}) as friend:
        assert ask(friend, frame)["data"]["status"] == "success"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3010", True),
        ("http://localhost:8080", True),
        ("http://evil.example", False),
        ("null", False),
        (None, True),
    ],
)
def test_browsers_connect_from_allowed_origins_only(server: Any, origin: str | None, allowed: bool) -> None:
    """A WebSocket handshake with a foreign Origin is refused with 403; programs send none."""
    if allowed:
        with server.connect(origin=origin) as client:
            assert ask(client, {"type": "ping"})["type"] == "pong"
    else:
        with pytest.raises(InvalidStatus) as refused, server.connect(origin=origin):
            pass
        assert refused.value.response.status_code == 403
