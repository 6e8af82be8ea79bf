"""JSON over HTTP: strict, so that what is not finite is written as null."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

_encode = msgspec.json.Encoder().encode


class JSON(Response):
    """A response from plain data; never cached."""

    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(content, status_code, {"cache-control": "no-store", **(headers or {})})

    def render(self, content: Any) -> bytes:
        """The content as strict JSON."""
        return _encode(content)


def problem(status: int, text: str) -> JSON:
    """An error as every endpoint reports it."""
    return JSON({"status": "error", "error": text}, status)


class BadBody(ValueError):
    """A request's body was refused with `status`."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


async def read_body(request: Request, limit: int) -> bytes:
    """The body, at most `limit` bytes. Raises BadBody (413) as soon as more arrives, 400 if the client goes away."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise BadBody(413, f"the body is longer than {limit} bytes")
    except ClientDisconnect:
        raise BadBody(400, "the body is incomplete") from None
    return bytes(body)


async def read_json(request: Request, limit: int) -> Any:
    """The body as JSON; None if it is empty. Raises BadBody (400, 413)."""
    body = await read_body(request, limit)
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise BadBody(400, "the body is not JSON") from None
