"""Who may connect, and who may change the instance."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from server_kit import ask
from tandem.inference_proc.access import Access, is_loopback, read_token
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
    with pytest.raises(ConfigError, match=re.escape("cannot be read")):
        read_token({"TANDEM_TOKEN_FILE": str(tmp_path / "none")})


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
