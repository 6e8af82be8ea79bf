"""Serves the dashboard: one page without any outside file."""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The browser may load nothing from outside and talk to this server only."""


class Dashboard:
    """The page, read once."""

    def __init__(self) -> None:
        self._page = files(__package__).joinpath("dashboard.html").read_bytes()

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [Route("/dashboard", self.page)]

    async def page(self, request: Request) -> Response:
        """The page."""
        headers = {
            "content-security-policy": _POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }
        return Response(self._page, media_type="text/html; charset=utf-8", headers=headers)
