"""Who may connect, and who may change the instance.

On a loopback address everybody who can reach the server may change it, unless a token is configured; on any other
address only who shows the token. A browser says where a page comes from: pages of other origins are turned away.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from ...shared.errors import ConfigError
from .json_response import problem

TOKEN_VARIABLE = "TANDEM_TOKEN"
TOKEN_FILE_VARIABLE = "TANDEM_TOKEN_FILE"


_LONGEST_TOKEN = 4096
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?")
_ALWAYS_ANSWERED = "/health"


class BadToken(ConfigError):
    """A token was refused: no client could show it. Its text is one line."""

    def __init__(self, source: str, text: str) -> None:
        self._line = f"{source}: {text}"
        super().__init__(source, [text])

    def __str__(self) -> str:
        return self._line


def read_token(environment: Mapping[str, str] = os.environ) -> str:
    """The token from the environment, or from the file that the environment names; empty if neither is set.

    Bytes that are not UTF-8 are kept as lone surrogates. Of a file the line's end does not count. Raises BadToken if
    the token could not be shown in a header (see `check_token`), or the file cannot be read or others may read it.
    """
    name = environment.get(TOKEN_FILE_VARIABLE, "")
    token = environment.get(TOKEN_VARIABLE)
    if token is not None:
        if not token and name:
            raise BadToken(TOKEN_VARIABLE, f"is empty, and {TOKEN_FILE_VARIABLE} is set; unset one of them")
        return _text(check_token(os.fsencode(token), TOKEN_VARIABLE))
    if not name:
        return ""
    path = Path(name)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadToken(TOKEN_FILE_VARIABLE, f"{name!r} cannot be read: {error}") from error
    if mode & 0o077:
        raise BadToken(TOKEN_FILE_VARIABLE, f"{path}: mode {mode:04o} lets others read it (allowed: 0600)")
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    return _text(check_token(content, f"{TOKEN_FILE_VARIABLE} ({path})"))


def check_token(token: bytes, source: str) -> bytes:
    """`token` itself. Raises BadToken naming `source`, and never the token, if no header can carry it."""
    if not token:
        raise BadToken(source, "is empty; unset it to go without a token")
    if len(token) > _LONGEST_TOKEN:
        raise BadToken(source, f"has {len(token)} bytes (allowed: at most {_LONGEST_TOKEN})")
    if any(byte < 0x20 or byte == 0x7F for byte in token):
        raise BadToken(source, "holds a control character or a line break, which no HTTP header can carry")
    if token != token.strip(b" "):
        raise BadToken(source, "begins or ends with a space, which HTTP takes off a header")
    return token


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def is_loopback(host: str) -> bool:
    """True if `host` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Access:
    """The rules for one server.

    `host` is the address it binds to, `origins` those that browsers may call from, `hosts` the names that requests may
    address it by (empty: any). Raises ConfigError for a name that no request can have, BadToken for such a token.
    """

    def __init__(self, host: str, origins: Iterable[str], token: str = "", hosts: Iterable[str] = ()) -> None:
        self._token = check_token(_bytes(token), "the token") if token else b""
        self._is_local = is_loopback(host)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._hosts = frozenset(_allowed_host(name) for name in hosts)

    def allows_host(self, scope: Scope) -> bool:
        """True if the request addresses the server by an allowed name; one without a port stands for every port."""
        if not self._hosts:
            return True
        host = _split(_single(scope, b"host"))
        if host is None:
            return False
        name, port = host
        if port is None:
            port = 443 if scope.get("scheme") in ("https", "wss") else 80
        return (name, None) in self._hosts or (name, port) in self._hosts

    def allows_origin(self, scope: Scope) -> bool:
        """True if the request comes from a page of an allowed origin or of this server, or from no page at all."""
        origins = _values(scope, b"origin")
        if not origins:
            # Images and links carry no Origin; browsers say there that another site's page asked.
            return all(site in (b"none", b"same-origin") for site in _values(scope, b"sec-fetch-site"))
        if len(origins) > 1:
            return False
        origin = origins[0].decode("latin-1").lower()
        if "*" in self._origins or origin in self._origins:
            return True
        own = _single(scope, b"host").lower()
        return own != "" and _netloc(origin) == own and self._is_own_name(own)

    def may_change(self, scope: Scope) -> bool:
        """True if whoever sent this request may reset, pause, roll back or reload."""
        if self._token:
            shown = _values(scope, b"authorization")
            return len(shown) == 1 and self._is_token(shown[0])
        return self._is_local and self.allows_origin(scope) and self._is_own_name(_single(scope, b"host"))

    def _is_token(self, value: bytes) -> bool:
        scheme, _, shown = value.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(shown.strip(b" \t"), self._token)

    def _is_own_name(self, host: str) -> bool:
        # A page may have its own name resolve to 127.0.0.1: to the browser it is then of this server's origin.
        if not self._is_local:
            return True
        found = _split(host)
        return found is not None and is_loopback(found[0])


class AllowedHosts:
    """Turns away requests and WebSocket handshakes that name another host. `/health` always answers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with 403."""
        if scope["type"] not in ("http", "websocket") or self._access.allows_host(scope) or _is_health(scope):
            return await self._app(scope, receive, send)
        text = "this server is not addressed by that host name (inference.allowed_hosts)"
        if scope["type"] == "websocket":
            return await deny(scope, send, 403, text)
        await problem(403, text)(scope, receive, send)


async def deny(scope: Scope, send: Send, status: int, text: str) -> None:
    """Refuse a WebSocket handshake, with an HTTP status if the server can send one."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": text})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": text.encode()})


def _is_health(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["type"] == "http" and path.removeprefix(scope.get("root_path", "")) == _ALWAYS_ANSWERED


def _allowed_host(entry: str) -> tuple[str, int | None]:
    """An entry of `inference.allowed_hosts` as name and port."""
    found = _split(f"[{entry}]" if entry.count(":") > 1 and not entry.startswith("[") else entry)
    if found is None:
        wanted = "a name or an address as it stands in a URL, with or without a port: example.org, [::1]:8010"
        raise ConfigError("inference.allowed_hosts", [f"{entry!r} is no host (allowed: {wanted})"])
    return found


def _split(host: str) -> tuple[str, int | None] | None:
    """Name and port of a Host header, the name in lower case; None if it is not well formed."""
    found = _HOST.fullmatch(host.lower())
    if found is None:
        return None
    address, name, port = found.groups()
    if address is not None:
        try:
            name = str(ipaddress.IPv6Address(address))
        except ValueError:
            return None
    return name.removesuffix("."), int(port) if port else None


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _values(scope: Scope, name: bytes) -> list[bytes]:
    raw: Any = scope.get("headers", ())
    return [value for key, value in raw if key.lower() == name]


def _single(scope: Scope, name: bytes) -> str:
    """The header's value; empty if it is missing or there is more than one."""
    values = _values(scope, name)
    return values[0].decode("latin-1") if len(values) == 1 else ""
