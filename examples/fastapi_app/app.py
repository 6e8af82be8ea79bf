"""A shop's own FastAPI application with the engine mounted in it: its routes, its lifespan."""

import asyncio
from contextlib import asynccontextmanager

import torch
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from shop import OFFERS
from tandem import Engine, Service


class Visit(BaseModel):
    basket: float
    spent: float
    hour: int


@asynccontextmanager
async def lifespan(app: FastAPI):
    torch.set_num_threads(1)  # one decision is too small to share among threads
    app.state.orders = 0
    engine = await asyncio.to_thread(Engine.attach)
    service = Service(engine)
    app.mount("/tandem", service.app)  # dashboard, /health, /ws and the rest, below /tandem
    app.state.engine = engine
    await service.start()  # a mounted application's own lifespan is not run
    try:
        yield
    finally:
        await service.stop()
        engine.close()


app = FastAPI(lifespan=lifespan)


@app.post("/visits/{customer}")
async def visit(customer: str, seen: Visit) -> dict:
    """What to offer this customer now. The visit also rewards what was offered at the last one."""
    try:
        decision = app.state.engine.decide(customer, seen.model_dump())
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    offer = OFFERS[decision.action[0]] if decision.send else OFFERS[0]
    return {"offer": offer, "sent": decision.send, "version": decision.version, "last_reward": decision.last_reward}


@app.post("/orders")
def order() -> dict:
    """A route that has nothing to do with decisions; it runs in a thread of FastAPI's."""
    app.state.orders += 1
    return {"orders": app.state.orders}


@app.get("/learning")
def learning() -> dict:
    """The engine may be used from FastAPI's threads too."""
    stats = app.state.engine.get_stats()
    return {
        "version": app.state.engine.model_version,
        "completed": stats["completed"],
        "pending": stats["pending_count"],
    }
