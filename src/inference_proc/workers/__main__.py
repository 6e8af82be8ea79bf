"""The bundled server with several processes: `python -m tandem.inference_proc.workers --instance NAME`.

This process listens and starts the workers, which inherit the socket: connections that wait to be accepted when a
worker dies are accepted by another one. With a socket for each (SO_REUSEPORT) they would be lost with the worker.
"""

from __future__ import annotations

from ...shared.memory.processes import leave_working_folder

if __name__ == "__main__":
    leave_working_folder()  # before anything else is imported

import argparse
import logging
import os
import signal
import sys
import time

from ...shared.configuration.config import Config, LoggingConfig, parse
from ...shared.errors import SegmentInvalid, SegmentMissing, TandemError
from ...shared.logs import configure_logging
from ...shared.memory.control import Control
from ...shared.memory.ownership import be_private
from ...shared.memory.segments import instance_name
from .sockets import listen
from .worker import Worker

log = logging.getLogger("tandem.inference_proc.workers")

_TURN = 0.1
"""Seconds between two looks at the workers."""
_WRITE_TIMEOUT = 20.0
"""As `web.limits.Limits`, which this process does not import."""


class Asked(Exception):
    """A signal asked for the end."""


def wait_for(instance: str, asked: list[int]) -> Control:
    """The control segment, once the instance is complete. Raises Asked, SegmentMissing or SegmentInvalid."""
    deadline = time.monotonic() + 30.0
    while not asked:
        try:
            return Control.attach(instance, timeout=0.2)
        except (SegmentMissing, SegmentInvalid):
            if time.monotonic() >= deadline:
                raise
    raise Asked


def keep(workers: list[Worker], asked: list[int]) -> int:
    """Keep the workers alive until a signal asks for the end: 0, or 1 if one of them died too often in a row."""
    while not asked:
        now = time.monotonic()
        for worker in workers:
            worker.turn(now)
            if worker.is_given_up:
                log.error("worker %d died too often in a row; all of them end", worker.number)
                return 1
        time.sleep(_TURN)
    return 0


def end(workers: list[Worker], grace: float) -> None:
    """Ask the workers to end, and kill those that do not within `grace` seconds."""
    for worker in workers:
        worker.stop()
    deadline = time.monotonic() + grace
    while any(worker.alive for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    for worker in workers:
        worker.stop(signal.SIGKILL)


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT: 0, or 1 with one message on standard error."""
    parser = argparse.ArgumentParser(prog="python -m tandem.inference_proc.workers", description=(__doc__ or "")[:40])
    parser.add_argument("--instance", default=instance_name())
    options = parser.parse_args(arguments)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        control = wait_for(options.instance, asked)
        config: Config = parse(control.schema["config"], f"instance {options.instance!r}", control.schema["folder"])
        configure_logging(LoggingConfig(**control.schema["config"]["logging"]))
        be_private(config.supervisor.mode)
        listener = listen(config.inference.host, config.inference.port, _WRITE_TIMEOUT)
        lifeline, held = os.pipe()
        os.set_inheritable(held, False)
        passed = listener.fileno(), lifeline
        workers = [Worker(number, control, *passed, config.supervisor) for number in range(config.inference.workers)]
        status = keep(workers, asked)
        # Half of the supervisor's patience, so that it finds nothing left to kill.
        end(workers, config.supervisor.stop_grace / 2)
        os.close(held)
        return status
    except Asked:
        return 0
    except TandemError as error:
        print(error, file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
