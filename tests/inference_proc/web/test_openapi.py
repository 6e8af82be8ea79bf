"""The OpenAPI document, and that the endpoints keep to it."""

from __future__ import annotations

import random
from typing import Any

import pytest

STREAMS = ("/api/training/stream",)
SLOW_WITHOUT_A_TRAINER = ("/api/training/checkpoint", "/api/training/rollback", "/api/training/reload")
ODD_VALUES = [
    "",
    "0",
    "-1",
    "1e3",
    "\u0000",
    "\u00fc\u2603",
    "9" * 400,
    "null",
    "[]",
    "../../etc/passwd",
    "%",
    "a b",
    "x" * 5000,
]
ODD_BODIES: list[bytes] = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"17",
    b"{",
    b"\xff\xfe",
    b'{"logs":{}}',
    b'{"version":-1}',
    b'{"version":"\\ud800"}',
    b'{"version":1e999}',
    b"[" * 20_000,
    b'{"a":' * 20_000,
    b"0" * 2_000_000,
]


def operations(server: Any) -> list[tuple[str, str, dict[str, Any]]]:
    """Every (method, path, operation) of the document."""
    document = server.get("/openapi.json").json()
    return [(method.upper(), path, item) for path, ops in document["paths"].items() for method, item in ops.items()]


def test_every_route_is_described(server: Any) -> None:
    """Each HTTP route is in the document with a summary, a unique id and a good answer."""
    from starlette.routing import Route

    described = operations(server)
    served = {
        (method, route.path)
        for route in server.service.app.routes
        if isinstance(route, Route)
        for method in route.methods
    }
    assert {(method, path) for method, path, _ in described} == {pair for pair in served if pair[0] != "HEAD"}
    assert all(operation["summary"] for _, _, operation in described)
    assert all({"200", "204"} & set(operation["responses"]) for _, _, operation in described)
    ids = [operation["operationId"] for _, _, operation in described]
    assert len(ids) == len(set(ids))


def test_every_plain_get_answers_as_described(server: Any) -> None:
    """Without parameters each GET gives a described status and content type."""
    for method, path, operation in operations(server):
        if method != "GET" or path in STREAMS:
            continue
        response = server.get(path)
        described = operation["responses"][str(response.status_code)]
        assert response.headers["content-type"].partition(";")[0] in described["content"], path


def test_odd_requests_get_a_described_answer(server: Any) -> None:
    """Odd parameters, bodies and headers end in a described status, never in a failure of the server."""
    source = random.Random(7)
    asked = 0
    for _ in range(10):
        for method, path, operation in operations(server):
            if path in STREAMS or path in SLOW_WITHOUT_A_TRAINER:
                continue
            names = [item["name"] for item in operation.get("parameters", [])] + ["other"]
            response = server.request(
                method,
                path,
                params={name: source.choice(ODD_VALUES) for name in names},
                content=source.choice(ODD_BODIES) if method != "GET" else None,
                headers={"content-type": source.choice(["application/json", "text/plain", "x"])},
            )
            asked += 1
            assert str(response.status_code) in operation["responses"], (method, path, response.text[:200])
    assert asked > 150
    assert server.get("/livez").status_code == 200


@pytest.mark.parametrize(
    "body", [body for body in ODD_BODIES if body not in (b"", b"null", b"[]", b"{}", b'"x"', b"17", b'{"logs":{}}')]
)
def test_odd_rollbacks_are_refused(server: Any, body: bytes) -> None:
    """What is not a version asks nothing of the trainer."""
    before = server.engine.control.get("command.sequence")
    response = server.request("POST", "/api/training/rollback", content=body)
    assert response.status_code in (400, 413)
    assert server.engine.control.get("command.sequence") == before
