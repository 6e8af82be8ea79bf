"""Two server processes behind one port: a reward may arrive at the process that did not decide."""

import asyncio
import os
from contextlib import asynccontextmanager

import torch
from router import BACKENDS
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from tandem import Engine, Service


@asynccontextmanager
async def lifespan(app):
    # Each worker process comes here and claims a lane of its own.
    torch.set_num_threads(1)
    app.state.engine = await asyncio.to_thread(Engine.attach)
    service = Service(app.state.engine)
    await service.start()  # shows progress, and takes in what other workers forward
    try:
        yield
    finally:
        await service.stop()
        app.state.engine.close()


async def decide(request):
    """{"key": ..., "load": [north, south, west]} -> where the request goes."""
    body = await request.json()
    decision = request.app.state.engine.decide(body["key"], body["load"])
    return JSONResponse({"backend": BACKENDS[decision.action[0]], "version": decision.version, "worker": os.getpid()})


async def reward(request):
    """{"key": ..., "value": ...}: how it went. `matched` is false if nothing waits under this key."""
    body = await request.json()
    matched = request.app.state.engine.reward(body["key"], body["value"])
    return JSONResponse({"matched": matched, "worker": os.getpid()})


app = Starlette(
    routes=[Route("/decide", decide, methods=["POST"]), Route("/reward", reward, methods=["POST"])], lifespan=lifespan
)
