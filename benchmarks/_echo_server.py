"""A server of the user's own (`inference.command`): the service as it is, and beside it routes that only echo.

What an echo costs is what the stack costs: the same event loop, HTTP parser, middleware, WebSocket and JSON.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import msgspec
import torch
from _calls_load import FEATURES
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from tandem import ActionHead, Application
from tandem.inference_proc.engine import Engine
from tandem.inference_proc.web.bundled_server import BundledServer
from tandem.inference_proc.web.generic_protocol import GenericHandler
from tandem.inference_proc.web.json_response import read_body
from tandem.inference_proc.web.service import Service
from tandem.inference_proc.web.websocket import WebSocketEndpoint
from tandem.inference_proc.workers.sockets import listen

CHOICES = 10
REPLY = {
    "decision_id": "0123456789abcdef-0123456789abcdef",
    "action": [3],
    "labels": None,
    "probability": 0.25,
    "send": True,
    "reason": "no_gate",
    "model_version": 1234,
}


def create(settings: Any, folder: Any) -> Application:
    """One head, the default model."""
    return Application("bench", tuple(f"x{number}" for number in range(FEATURES)), (ActionHead("choice", CHOICES),))


class Echo(GenericHandler):
    """Answers each frame with itself."""

    async def handle(self, client: Any, frame: str | bytes) -> bytes | None:
        """The same bytes; JSON once in and once out, as for a decision."""
        return msgspec.json.encode(msgspec.json.decode(frame))


async def echo(request: Request) -> Response:
    """A body of JSON in, an answer of a decision's size out."""
    msgspec.json.decode(await read_body(request, 1 << 20))
    return Response(msgspec.json.encode(REPLY), 200, {"cache-control": "no-store"}, "application/json")


def main() -> None:
    """Serve until SIGTERM."""
    torch.set_num_threads(1)
    engine = Engine.attach(os.environ["TANDEM_INSTANCE"])
    service = Service(engine)
    handler = Echo(engine, engine.application)
    frames = WebSocketEndpoint(handler, service.connections, service.access, service.limits)
    routes: Any = service.app.router.routes
    routes[:0] = [Route("/echo", echo, methods=["POST"]), WebSocketRoute("/echo", frames)]
    server = BundledServer(service, listen("127.0.0.1", int(os.environ["BENCH_PORT"]), 20.0))
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    asyncio.run(server.run_service())
    engine.close()


if __name__ == "__main__":
    main()
