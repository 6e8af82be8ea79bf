"""The bundled server process: `python -m tandem.inference_proc --instance NAME`."""

from __future__ import annotations

from ..shared.memory.processes import leave_working_folder

if __name__ == "__main__":
    leave_working_folder()  # before anything else is imported

import argparse
import asyncio
import logging
import signal
import sys
import time

import torch

from ..shared.configuration.config import Config, LoggingConfig, load
from ..shared.errors import MissingExtra, SegmentInvalid, SegmentMissing, TandemError
from ..shared.logs import configure_logging
from ..shared.memory.control import Control
from ..shared.memory.ownership import be_private
from ..shared.memory.segments import instance_name
from .engine import Engine
from .static import StaticEngine, fall_back

try:
    from .web.access import read_token
    from .web.bundled_server import BundledServer
    from .web.listener import raise_descriptor_limit
    from .web.service import Service
    from .workers.sockets import listen, listen_on
except MissingExtra as error:
    sys.exit(str(error))


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


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tandem.inference_proc", description="The bundled server.")
    parser.add_argument("--instance", default=instance_name())
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration that `ctl up` is given: how long to wait for the instance, and whether its newest"
        " checkpoint decides if it does not come (inference.static_fallback)",
    )
    parser.add_argument("--listener", type=int, metavar="FD", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT: 0, or 1 with one message on standard error."""
    options = parsed(arguments)
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
        settings, write_timeout = engine.config.inference, service.limits.write_timeout
        if options.listener is None:
            listener = listen(settings.host, settings.port, write_timeout)
        else:
            listener = listen_on(options.listener, write_timeout)
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
