"""Errors of the two calls as Problem Details (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.responses import Response

from ....shared.errors import TandemError
from .messages import Problem

_RETRY_SECONDS = "1"


class Refused(Exception):
    """A request is answered with `problem`."""

    def __init__(self, status: int, detail: str) -> None:
        self.problem = Problem(HTTPStatus(status).phrase, status, detail)
        super().__init__(detail)

    def response(self) -> Response:
        """The answer."""
        headers = {"cache-control": "no-store"}
        if self.problem.status in (429, 503):
            headers["retry-after"] = _RETRY_SECONDS
        body = msgspec.json.encode(self.problem)
        return Response(body, self.problem.status, headers, "application/problem+json")


def refusal(error: Exception) -> Refused | None:
    """How an exception of the engine is answered; None if it is nobody's fault that a client could mend."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ValueError):  # first: what an application's encoding raises may be both
        return Refused(400, str(error)[:500])
    if isinstance(error, TandemError):
        return Refused(503, str(error)[:500])
    return None
