"""Hostile values for every entry of an instance: what clients and a host's code send by mistake or on purpose."""

from __future__ import annotations

import decimal
import fractions
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

NUMBERS: tuple[Any, ...] = (
    float("nan"),
    float("inf"),
    float("-inf"),
    1e39,
    -1e39,
    3.5e38,
    3e38,
    1e20,
    -1e20,
    1e308,
    5e-324,
    10**40,
    10**400,
    2**63,
    -(2**64),
    True,
    None,
    "0.5",
    "x",
    b"1",
    1j,
    [0.5],
    {},
    decimal.Decimal("0.5"),
    decimal.Decimal("NaN"),
    decimal.Decimal("1e400"),
    fractions.Fraction(1, 3),
    np.float32(0.5),
    np.float16("inf"),
    np.int64(3),
    np.bool_(True),
    np.array(0.5),
    np.array([0.5]),
    np.array([0.5, 0.5]),
    torch.tensor(0.5, requires_grad=True),
)
KEYS: tuple[Any, ...] = (
    "",
    "a\0",
    "a\0b",
    "\0",
    "\ud800",
    "\n",
    "😀" * 200,
    "x" * 100_000,
    7,
    -1,
    10**40,
    None,
    b"a",
    ("a", 1),
    ["a"],
    {},
    float("nan"),
    np.str_("k"),
)
FEATURES = 2


def _reused() -> Callable[[random.Random], Any]:
    buffer = np.zeros(FEATURES, np.float32)

    def observation(source: random.Random) -> Any:
        buffer[:] = source.random()
        return buffer

    return observation


_reused_buffer = _reused()


def observation(source: random.Random) -> Any:
    """Something that stands where an observation should."""
    way = source.randrange(12)
    number = source.choice(NUMBERS)
    if way < 5:
        return [number, source.random()]
    if way == 5:
        return [source.choice(NUMBERS) for _ in range(source.randrange(5))]
    if way == 6:
        return number
    if way == 7:
        return np.array([source.choice((1e39, 3e38, float("nan"), 0.1)), 0.2])
    if way == 8:
        return _reused_buffer(source)
    if way == 9:
        return {"hour": number, "darkness": 1}
    if way == 10:
        return np.full(FEATURES, source.choice((3e38, -3e38, 1e30, 1e-45)), np.float32)
    return iter([0.1, 0.2])


def request(source: random.Random) -> Any:
    """Something that stands where one request of `decide_many` should."""
    way = source.randrange(8)
    if way == 0:
        return source.choice(((), ("k",), ("k", [0.1, 0.2]), None, "k", ("k", [0.1, 0.2], "t", 1)))
    territory = source.choice(("", None, 5, "t\0", "\ud800", "t" * 10_000, b"t"))
    return (source.choice(KEYS) if way < 4 else f"hostile-{source.randrange(20)}", observation(source), territory)


_JSON_NUMBERS = (
    "NaN", "Infinity", "1e39", "-1e39", "3.5e38", "3e38", "1e20", "1e400", "9" * 400, "9" * 5000, "null", "true",
    '"0.5"', "[0.5]", "{}", "-0.0", "0.5", "",
)  # fmt: skip
_JSON_TEXTS = ('"k"', '""', '"a\\u0000"', '"\\ud800"', "5", "null", "[]", "{}", '"' + "x" * 5000 + '"', '"\\n"')


def frame(source: random.Random) -> str | bytes:
    """A WebSocket frame in the bundled protocol's shape, with something wrong in it."""
    way = source.randrange(14)
    if way == 0:
        return bytes(source.randrange(256) for _ in range(source.randrange(200)))
    if way == 1:
        return source.choice(("", "[]", "{}", "null", "[" * 100_000, '{"type":1}', '{"type":"decide"}', "\ufeff{}"))
    if way == 2:
        return json.dumps({"type": source.choice(("decide", "reward", "ping", "reset_nn", "x\0")), "data": [1]})
    key, number = source.choice(_JSON_TEXTS), source.choice(_JSON_NUMBERS)
    if way < 8:
        text = f'{{"type":"decide","key":{key},"observation":[{number},{source.choice(_JSON_NUMBERS)}]}}'
    elif way < 12:
        text = f'{{"type":"reward","key":{key},"value":{number}}}'
    else:
        text = '{"type":"decide","key":"hostile","observation":[0.1,0.2]}'
    if source.random() < 0.2:
        cut = source.randrange(len(text) + 1)
        text = text[:cut] + source.choice(("", text, "\0", "☃"))
    return text


_HTTP_HEADERS = (
    "Content-Length: -1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\n",
    "X: " + "y" * 20_000 + "\r\n",
    "Origin: null\r\n",
    "Authorization: Bearer \xff\r\n",
    "Cookie: \0\r\n",
    "Expect: 100-continue\r\n",
    "Range: bytes=0-\r\n",
)


def http(source: random.Random, port: int) -> bytes:
    """The bytes of an HTTP request with something wrong in it, or with nothing wrong and no authority."""
    path = source.choice(
        ("/health", "/", "/api/training/stats", "/api/training/history?since=NaN&limit=-1", "/api/nn-dashboard", "/%00",
         "/api/training/history?limit=99999999999999999999", "/metrics", "/../../etc/passwd", "/dashboard", "/ws",
         "/message-stats", "/api/training/versions?limit=1e39", "/" + "a" * 3000, "/api/progress?player_id=%ff")
    )  # fmt: skip
    method = source.choice(("GET", "POST", "DELETE", "HEAD", "OPTIONS", "BREW", "get"))
    host = source.choice((f"127.0.0.1:{port}", "", "evil.example", "\xff", "a" * 1000))
    body = source.choice((b"", b"{}", b"[" * 1000, b"\xff" * 100, b'{"logs":1e400}'))
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
    if source.random() < 0.3:
        head += source.choice(_HTTP_HEADERS)
    if source.random() < 0.1:
        return head.encode("latin-1")[: source.randrange(60)]
    return head.encode("latin-1") + b"Connection: close\r\n\r\n" + body
