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
import time
from collections.abc import AsyncIterator
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
from .access import Access, AllowedHosts, read_token
from .connections import Connections
from .endpoints.dashboard import Dashboard
from .endpoints.decisions import NnDashboard
from .endpoints.prometheus import Prometheus
from .endpoints.status import Rest
from .endpoints.training import TrainingApi
from .generic_protocol import GenericHandler, MessageHandler
from .json_response import problem
from .limits import Limits
from .openapi import OpenApi
from .websocket import WebSocketEndpoint

if TYPE_CHECKING:
    from ..static import StaticEngine

log = logging.getLogger(__name__)

_BEAT = 0.5


class Service:
    """One engine, its message handler, its connections and its ASGI application `app`.

    A StaticEngine has no instance to show: `app` then lacks the endpoints about training, and the dashboard.
    """

    def __init__(self, engine: Engine | StaticEngine, limits: Limits | None = None, token: str | None = None) -> None:
        config = engine.config
        self.engine = engine
        self.limits = limits or Limits.of(config.inference)
        self.access = Access(
            config.inference.host,
            config.inference.allowed_origins,
            read_token() if token is None else token,
            config.inference.allowed_hosts,
        )
        self.connections = Connections(self.limits.connections)
        self.gpu = trains_on_gpu(config.trainer.device)
        build = engine.application.handler
        self.handler: MessageHandler = GenericHandler(engine) if build is None else build(engine)
        self.started = False
        self._started_at = time.monotonic()
        self._beats: asyncio.Task[None] | None = None
        self._stopping: asyncio.Event | None = None
        self.app = self._build_app()

    async def start(self, ready: bool = True) -> None:
        """Begin to show progress in shared memory, and unless told otherwise announce readiness. Idempotent."""
        if self._beats is None:
            self._stopping = asyncio.Event()
            self._beats = asyncio.create_task(self._beat())
            self._started_at = time.monotonic()
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

    def begin_stop(self) -> None:
        """End the responses that go on for long, so that a server that waits for them can stop."""
        if self._stopping is not None:
            self._stopping.set()

    async def is_stopping_within(self, seconds: float) -> bool:
        """Wait for `seconds`, or until the service begins to stop, and say which it was."""
        if self._stopping is None:
            return True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_at

    def state(self) -> str:
        """`starting`, `running` or `degraded`."""
        return "starting" if not self.started else "degraded" if self.engine.troubles() else "running"

    async def _beat(self) -> None:
        while True:
            try:
                self.engine.beat()
            except Exception:
                log.exception("the engine's periodic work failed")
            await asyncio.sleep(_BEAT)

    def _build_app(self) -> Starlette:
        endpoint = WebSocketEndpoint(self.handler, self.connections, self.access, self.limits)
        routes: list[BaseRoute] = [
            WebSocketRoute("/ws", endpoint),
            WebSocketRoute("/ws/{client_id}", endpoint),
            *Rest(self).routes(),
        ]
        if isinstance(self.engine, Engine):
            routes += TrainingApi(self, self.engine).routes()
            routes += NnDashboard(self, self.engine).routes()
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


def trains_on_gpu(device: str) -> bool:
    """True if the trainer's setting `device` means a GPU on this machine."""
    if device == "cpu":
        return False
    import torch

    return torch.cuda.is_available()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = problem(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def _failure(request: Request, error: Exception) -> Response:
    return problem(500, "the server failed to answer this request")
