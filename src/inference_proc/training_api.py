"""The REST endpoints about training; every figure comes from shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..shared import layout
from ..shared.stats import training_stats
from .json_response import JSON, problem

if TYPE_CHECKING:
    from .server import Service


class TrainingApi:
    """Endpoints on one service."""

    def __init__(self, service: Service) -> None:
        self._control = service.engine.control

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("/api/training/stats", self.stats),
            Route("/api/training/history", self.history),
        ]

    async def stats(self, request: Request) -> Response:
        """Versions, training, buffer and configuration."""
        return JSON(training_stats(self._control))

    async def history(self, request: Request) -> Response:
        """The newest training steps with a version above `since`, oldest first, at most `limit`."""
        try:
            since = _number(request, "since", 0, 2**63)
            limit = _number(request, "limit", layout.HISTORY_ROWS, layout.HISTORY_ROWS)
        except ValueError as error:
            return problem(400, str(error))
        rows = self._control.history(since, limit)
        return JSON({"model_version": self._control.get("version"), "rows": rows})


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= most):
        raise ValueError(f"{name}: must be a whole number, 0 to {most}")
    return int(text)
