"""The bundled server: uvicorn around one service, on a socket that was opened before anything else could fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn

from ...shared.configuration.addresses import authority
from .guarded import GuardedConfig, GuardedHttp
from .listener import Listener
from .quiet import quiet_libraries
from .service import Service

log = logging.getLogger(__package__)


class BundledServer(uvicorn.Server):
    """uvicorn around one service: readiness is announced once the socket listens, and signals end it with status 0."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        limits = service.limits
        config = GuardedConfig(
            service.app,
            limits,
            ws_max_size=limits.frame_bytes,
            ws_ping_interval=limits.ping_interval,
            ws_ping_timeout=limits.ping_timeout,
            ws_per_message_deflate=False,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(limits.shutdown_timeout)),
        )
        super().__init__(config)
        quiet_libraries()
        self._service = service
        self._listener = listener
        self._accepting = Listener(listener, config, self.server_state.connections)

    async def run_service(self) -> None:
        """Serve until `should_exit`."""
        await self._service.start(ready=False)
        try:
            await self.serve([self._listener])
        finally:
            await self._service.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await self.lifespan.startup()
        self.servers = []
        self._accepting.start(self._protocol)
        self.started = True
        self._service.mark_ready()
        host, port = self._listener.getsockname()[:2]
        log.info("version %d: serving on http://%s", self._service.engine.model_version, authority(host, port))

    def _protocol(self) -> asyncio.Protocol:
        return GuardedHttp(self.config, self.server_state, self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End streams first: uvicorn waits for open responses."""
        self._service.begin_stop()
        self._accepting.stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: uvicorn would end the process by the signal, not with status 0."""
        yield
