"""Addresses as they stand in a URL. Standard library only."""

from __future__ import annotations

_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def authority(host: str, port: int) -> str:
    """Address and port as they stand in a URL: an IPv6 address in brackets."""
    host = host.strip("[]")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(host: str, port: int) -> str:
    """`authority` of a server that listens on `host`, for a client on the same machine."""
    return authority(_ANY.get(host.strip("[]"), host), port)
