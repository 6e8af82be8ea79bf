"""Who may connect, and who may change the instance.

On a loopback address everybody who can reach the server may change it, unless a token is configured; on any other
address only who shows the token. A browser says where a page comes from: pages of other origins are turned away.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.types import Scope

from ..shared.errors import ConfigError

TOKEN_VARIABLE = "TANDEM_TOKEN"
TOKEN_FILE_VARIABLE = "TANDEM_TOKEN_FILE"


def read_token(environment: Mapping[str, str] = os.environ) -> str:
    """The token from the environment, or from the file that the environment names; empty if there is none.

    Raises ConfigError if the file cannot be read, is empty, or others than its owner may read it.
    """
    token = environment.get(TOKEN_VARIABLE, "")
    name = environment.get(TOKEN_FILE_VARIABLE, "")
    if token or not name:
        return token
    path = Path(name)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(TOKEN_FILE_VARIABLE, [f"{path}: cannot be read: {error}"]) from error
    if mode & 0o077:
        raise ConfigError(TOKEN_FILE_VARIABLE, [f"{path}: mode {mode:04o} lets others read it (allowed: 0600)"])
    if not token:
        raise ConfigError(TOKEN_FILE_VARIABLE, [f"{path}: is empty"])
    return token


def is_loopback(host: str) -> bool:
    """True if `host` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Access:
    """The rules for one server. `host` is the address it binds to, `origins` those that browsers may call from."""

    def __init__(self, host: str, origins: Iterable[str], token: str = "") -> None:
        self._token = token.encode()
        self._is_local = is_loopback(host)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    def allows_origin(self, scope: Scope) -> bool:
        """True if the request comes from a page of an allowed origin or of this server, or from no page at all."""
        headers = _headers(scope)
        origin = headers.get("origin")
        if origin is None:
            # Images and links carry no Origin; browsers say there that another site's page asked.
            return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        if "*" in self._origins or origin.lower() in self._origins:
            return True
        own = headers.get("host", "").lower()
        return own != "" and _netloc(origin) == own and self._is_own_name(own)

    def may_change(self, scope: Scope) -> bool:
        """True if whoever sent this request may reset, pause, roll back or reload."""
        headers = _headers(scope)
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if self._token and scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), self._token):
            return True
        if self._token or not self._is_local:
            return False
        return self.allows_origin(scope) and self._is_own_name(headers.get("host", ""))

    def _is_own_name(self, host: str) -> bool:
        # A page may have its own name resolve to 127.0.0.1: to the browser it is then of this server's origin.
        return not self._is_local or is_loopback(_name(host))


def _name(host: str) -> str:
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _headers(scope: Scope) -> dict[str, str]:
    raw: Any = scope.get("headers", ())
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
