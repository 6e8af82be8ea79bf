"""The ASGI application around an engine: to be mounted in a server of the user's, or served by `python -m`.

An application that is mounted in another does not get its lifespan run, so `Service` is started and stopped explicitly:

    service = Service(engine)
    app.mount("/tandem", service.app)
    await service.start()   # in your own lifespan
    await service.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute

from ..engine import Engine
from .access import AllowedHosts
from .endpoints.dashboard import Dashboard
from .endpoints.decisions import NnDashboard
from .endpoints.prometheus import Prometheus
from .endpoints.status import Rest
from .endpoints.training import TrainingApi
from .json_response import problem
from .limits import Limits
from .openapi import OpenApi
from .serving import Serving
from .v1.calls import Calls
from .websocket import WebSocketEndpoint

if TYPE_CHECKING:
    from ..static import StaticEngine

log = logging.getLogger(__name__)

_BEAT = 0.5


class Service(Serving):
    """One engine, its message handler, its connections and its ASGI application `app`.

    A StaticEngine has no instance to show: `app` then lacks the endpoints about training, and the dashboard.
    """

    def __init__(self, engine: Engine | StaticEngine, limits: Limits | None = None, token: str | None = None) -> None:
        super().__init__(engine, limits, token)
        self._beats: asyncio.Task[None] | None = None
        self.app = self._build_app()

    async def start(self, ready: bool = True) -> None:
        """Begin to show progress in shared memory, and unless told otherwise announce readiness. Idempotent."""
        if self._beats is None:
            self.begin()
            self._beats = asyncio.create_task(self._beat())
        if ready:
            self.mark_ready()

    def mark_ready(self) -> None:
        """Announce that decisions are answered from now on."""
        self.started = True
        self.engine.mark_ready()

    async def stop(self) -> None:
        """Stop showing progress. The engine stays open: whoever made it closes it. Idempotent."""
        self.begin_stop()
        self.started = False
        beats, self._beats = self._beats, None
        if beats is not None:
            beats.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beats

    async def _beat(self) -> None:
        # Beside the event loop: where thousands of decisions expire at once, requests are answered in between. In a
        # thread of its own: whatever else waits in threads must not make this process look stuck.
        with ThreadPoolExecutor(1, "beat") as thread:
            while True:
                # That the loop turns is what a beat says: each is begun by it.
                beat = asyncio.get_running_loop().run_in_executor(thread, self.engine.beat)
                try:
                    await asyncio.shield(beat)
                except asyncio.CancelledError:
                    # Whoever stops the service may close the engine next.
                    await asyncio.wait([beat])
                    raise
                except Exception:
                    log.exception("the engine's periodic work failed")
                await asyncio.sleep(_BEAT)

    def _build_app(self) -> Starlette:
        endpoint = WebSocketEndpoint(self.handler, self.connections, self.access, self.limits)
        routes: list[BaseRoute] = [
            WebSocketRoute("/ws", endpoint),
            WebSocketRoute("/ws/{client_id}", endpoint),
            *Calls(self).routes(),
            *Rest(self).routes(),
        ]
        if isinstance(self.engine, Engine):
            routes += TrainingApi(self.engine, self.access, self.limits, self.is_stopping_within).routes()
            routes += NnDashboard(self.engine, self.handler, self.access).routes()
            routes += Prometheus(self.engine.control).routes()
            routes += Dashboard().routes()
        routes += OpenApi(routes).routes()
        cors = Middleware(
            CORSMiddleware,
            allow_origins=self.engine.config.inference.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type"],
        )
        app = Starlette(
            routes=routes,
            # Level 1: a history shrinks to a third in about a millisecond. It leaves event streams alone.
            middleware=[
                Middleware(AllowedHosts, self.access),
                cors,
                Middleware(GZipMiddleware, minimum_size=4096, compresslevel=1),
            ],
            exception_handlers={HTTPException: _http_error, Exception: _failure},
            lifespan=self._lifespan,
        )
        app.state.service = self
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self.start()
        try:
            yield
        finally:
            await self.stop()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = problem(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def _failure(request: Request, error: Exception) -> Response:
    return problem(500, "the server failed to answer this request")
