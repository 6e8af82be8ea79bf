"""The REST endpoints about the server itself: health, status, connections, reset, what the game's client expects."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any

import psutil
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .... import __version__
from ....shared.errors import TandemError
from ....shared.memory.processes import own_uptime
from ....shared.telemetry.learning_reasons import learning_notices
from ..json_response import JSON, BadBody, problem, read_json

if TYPE_CHECKING:
    from ..serving import Serving

log = logging.getLogger(__name__)

_PROGRESS = {"currentLevel": 0, "highestTitle": "Initiate", "totalUpgradeBonus": 0, "completedLevels": []}


class Rest:
    """Endpoints on one service. They show the whole of it, and so they get the whole of it."""

    def __init__(self, service: Serving) -> None:
        self._service = service
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call starts the measurement

    def routes(self) -> list[Route]:
        """All routes of this module."""
        return [
            Route("/", self.index),
            Route("/health", self.health),
            Route("/livez", self.alive),
            Route("/readyz", self.ready),
            Route("/system/status", self.system_status),
            Route("/message-stats", self.message_statistics),
            Route("/connections", self.connections),
            Route("/reset-nn", self.reset, methods=["GET", "POST"]),
            Route("/api/progress", self.progress, methods=["GET", "POST", "DELETE"]),
            Route("/logs", self.client_logs, methods=["POST"]),
        ]

    async def index(self, request: Request) -> Response:
        """What this is and where to look."""
        service = self._service
        return JSON(
            {
                "service": "tandem",
                "version": __version__,
                "application": service.engine.application.name,
                "state": service.state(),
                "model_version": service.engine.model_version,
                "dashboard": None
                if service.engine.control is None
                else f"{request.scope.get('root_path', '')}/dashboard",
            }
        )

    async def health(self, request: Request) -> Response:
        """200 while decisions are answered, `degraded` and why if something else is wrong; 503 before the start."""
        service, engine = self._service, self._service.engine
        if not service.started:
            return JSON({"status": "starting", "timestamp": time.time()}, 503)
        reasons = engine.troubles()
        body: dict[str, Any] = {
            "status": "degraded" if reasons else "healthy",
            "timestamp": time.time(),
            "ai_engine": "running",
            "neural_network": "ready",
            "gpu_acceleration": service.gpu,
            "active_connections": len(service.connections),
            "model_version": engine.model_version,
            "system_metrics": {
                "uptime_seconds": own_uptime(),
                "environment": os.environ.get("TANDEM_ENVIRONMENT", "production"),
                "log_level": engine.config.logging.level,
            },
            "performance_metrics": {
                "memory_mb": self._process.memory_info().rss / 2**20,
                "cpu_percent": self._process.cpu_percent(),
                "threads": self._process.num_threads(),
            },
        }
        if reasons:
            body["reasons"] = reasons
        notices = [] if engine.control is None else learning_notices(engine.control)
        if notices:
            body["notices"] = notices
        return JSON(body)

    async def alive(self, request: Request) -> Response:
        """The event loop turns."""
        return JSON({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """200 once decisions are answered."""
        ready = self._service.started
        return JSON({"status": "ready" if ready else "starting"}, 200 if ready else 503)

    async def system_status(self, request: Request) -> Response:
        """Both processes in one picture."""
        service, engine = self._service, self._service.engine
        return JSON(
            {
                "service": "tandem",
                "state": service.state(),
                "reasons": engine.troubles(),
                "instance": engine.name,
                "application": engine.application.name,
                "model_version": engine.model_version,
                "uptime_seconds": own_uptime(),
                "trainer": {"enabled": engine.enabled, "alive": engine.trainer_alive},
                "active_connections": len(service.connections),
                "engine": engine.get_stats(),
            }
        )

    async def message_statistics(self, request: Request) -> Response:
        """Counts of the messages handled by this process."""
        handler = self._service.handler
        return JSON(
            {
                "statistics": handler.statistics.to_dict(),
                "success_rate": handler.statistics.success_rate,
                "supported_message_types": handler.supported,
            }
        )

    async def connections(self, request: Request) -> Response:
        """The open connections of this process."""
        return JSON(self._service.connections.to_dict())

    async def reset(self, request: Request) -> Response:
        """New random weights, empty buffer. The version goes on from where it was."""
        service = self._service
        if not service.access.may_change(request.scope):
            return problem(403, "resetting needs the token, or a request from this machine")
        try:
            version = await asyncio.to_thread(service.engine.reset)
        except TandemError as error:
            return problem(503, str(error))
        except Exception as error:
            log.exception("the reset failed")
            return problem(500, f"the reset failed: {error}")
        details = {"model_version": version}
        return JSON({"status": "success", "message": "the neural network was reset", "details": details})

    async def progress(self, request: Request) -> Response:
        """The game's player progress is not stored here: always the defaults."""
        return JSON({"success": True, "data": _PROGRESS, "message": "progress is not stored by this server"})

    async def client_logs(self, request: Request) -> Response:
        """The browser's log lines, into the debug log."""
        try:
            body = await read_json(request, self._service.limits.body_bytes)
        except BadBody as error:
            return problem(error.status, str(error))
        lines = body.get("logs") if isinstance(body, dict) else None
        if not isinstance(lines, list):
            return problem(400, "logs: must be an array")
        log.debug("%d log lines from %.64s", len(lines), body.get("source"))
        return Response(status_code=204)
