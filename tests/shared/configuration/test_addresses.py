"""Addresses stand in URLs as clients take them."""

from __future__ import annotations

import pytest
from tandem.shared.configuration.addresses import authority, reachable


@pytest.mark.parametrize(
    ("host", "shown", "own"),
    [
        ("127.0.0.1", "127.0.0.1:80", "127.0.0.1:80"),
        ("::1", "[::1]:80", "[::1]:80"),
        ("[::1]", "[::1]:80", "[::1]:80"),
        ("0.0.0.0", "0.0.0.0:80", "127.0.0.1:80"),
        ("::", "[::]:80", "[::1]:80"),
        ("", ":80", "127.0.0.1:80"),
        ("shop.example", "shop.example:80", "shop.example:80"),
    ],
)
def test_an_ipv6_address_has_brackets_and_any_address_is_this_machines(host: str, shown: str, own: str) -> None:
    """`authority` is what was bound; `reachable` is what a client on the machine connects to."""
    assert authority(host, 80) == shown
    assert reachable(host, 80) == own
