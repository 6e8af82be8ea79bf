"""The bundled server process: `python -m tandem.inference_proc --instance NAME`."""

from __future__ import annotations

from ..shared.memory.processes import leave_working_folder

if __name__ == "__main__":
    leave_working_folder()  # before anything else is imported

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Iterator

import torch
import uvicorn

from ..shared.configuration.addresses import authority
from ..shared.configuration.config import Config, LoggingConfig, load
from ..shared.errors import SegmentInvalid, SegmentMissing, TandemError
from ..shared.logs import configure_logging
from ..shared.memory.control import Control
from ..shared.memory.ownership import be_private
from ..shared.memory.segments import instance_name
from .engine import Engine
from .static import StaticEngine, fall_back
from .web.access import read_token
from .web.guarded import GuardedConfig, GuardedHttp
from .web.listener import Listener, raise_descriptor_limit
from .web.quiet import quiet_libraries
from .web.service import Service

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


def listen(host: str, port: int, write_timeout: float) -> socket.socket:
    """A listening socket. Raises TandemError if the address is not to be had."""
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        where = authority(host, port)
        raise TandemError(f"inference.host, inference.port: cannot listen on {where}: {error}") from error
    # Inherited by every connection: a client that does not read is cut off, however long it goes on acknowledging.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(write_timeout * 1000))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def attach(instance: str, config: Config, asked: list[int]) -> Engine | StaticEngine | None:
    """The engine, as soon as the instance is complete; None if a signal came first (it is noted in `asked`).

    If it is not there after `inference.attach_timeout`, `config` says whether its newest checkpoint decides instead.
    """
    deadline = time.monotonic() + config.inference.attach_timeout
    while not asked:
        try:
            configure_logging(instance_logging(instance))
            return Engine.attach(instance, timeout=0.2)
        except (SegmentMissing, SegmentInvalid) as error:
            if time.monotonic() >= deadline:
                configure_logging(config.logging)
                return fall_back(config, instance, error)
    return None


def instance_logging(instance: str) -> LoggingConfig:
    """The instance's section `logging`, read before anything else of it, so that attaching is logged as configured."""
    control = Control.attach(instance, writable=False, timeout=0.2)
    try:
        return LoggingConfig(**control.schema["config"]["logging"])
    finally:
        control.close()


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT: 0, or 1 with one message on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tandem.inference_proc", description="The bundled server.")
    parser.add_argument("--instance", default=instance_name())
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration that `ctl up` is given: how long to wait for the instance, and whether its newest"
        " checkpoint decides if it does not come (inference.static_fallback)",
    )
    options = parser.parse_args(arguments)
    asked: list[int] = []
    server: BundledServer | None = None

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        if server is not None:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    try:
        token = read_token()
        raise_descriptor_limit()
        # One decision is too small to share among threads, and the trainer wants the other cores.
        torch.set_num_threads(1)
        engine = attach(options.instance, load(options.config, must_exist=True), asked)
        if engine is None:
            return 0
        be_private(engine.config.supervisor.mode)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        service = Service(engine, token=token)
        listener = listen(engine.config.inference.host, engine.config.inference.port, service.limits.write_timeout)
        server = BundledServer(service, listener)
        if not asked:
            asyncio.run(server.run_service())
        engine.close()
    except TandemError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
