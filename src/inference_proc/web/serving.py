"""What the endpoints show and use of the service that they belong to: engine, limits, access, connections, state."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...shared.messages.handler import MessageHandler
from .access import Access, read_token
from .connections import Connections
from .generic_protocol import GenericHandler
from .limits import Limits

if TYPE_CHECKING:
    from ..engine import Engine
    from ..static import StaticEngine


class Serving:
    """One engine with its message handler and its connections, from the start of the service to its stop."""

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
        self.handler: MessageHandler = (
            GenericHandler(engine, engine.application, config.inference.max_batch) if build is None else build(engine)
        )
        self.open_connections: Callable[[], int] = lambda: 1
        """How many HTTP clients may ask at the same time, if the server that carries the service tells."""
        self.started = False
        self._stopping: asyncio.Event | None = None

    def begin(self) -> None:
        """The service begins, in the running event loop."""
        self._stopping = asyncio.Event()

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

    def state(self) -> str:
        """`starting`, `running` or `degraded`."""
        return "starting" if not self.started else "degraded" if self.engine.troubles() else "running"


def trains_on_gpu(device: str) -> bool:
    """True if the trainer's setting `device` means a GPU on this machine."""
    if device == "cpu":
        return False
    import torch

    return torch.cuda.is_available()
