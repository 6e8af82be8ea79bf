"""The shop's server: which product stands on top of the page for a visitor, and who clicked on it."""

import asyncio
from contextlib import asynccontextmanager

import torch
from catalogue import INTERESTS, PRODUCTS
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field
from tandem import Engine, Service


class Visitor(BaseModel):
    interests: list[float] = Field(min_length=len(INTERESTS), max_length=len(INTERESTS))


@asynccontextmanager
async def lifespan(app: FastAPI):
    torch.set_num_threads(1)  # one decision is too small to share among threads
    app.state.engine = await asyncio.to_thread(Engine.attach)
    service = Service(app.state.engine)
    app.mount("/tandem", service.app)  # the dashboard, below /tandem
    await service.start()
    try:
        yield
    finally:
        await service.stop()
        app.state.engine.close()


app = FastAPI(lifespan=lifespan)


@app.post("/pages")
async def page(visitor: Visitor) -> dict:
    """The product on top of a visitor's page, and the number under which a click on it is reported."""
    try:
        decision = app.state.engine.decide(None, visitor.interests)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    return {"page": decision.id, "product": PRODUCTS[decision.action[0]], "version": decision.version}


@app.post("/pages/{page}/click")
async def click(page: str) -> dict:
    """The visitor clicked. Nobody reports who did not: `inference.default_reward` says what that is worth."""
    outcome = app.state.engine.reward_decision(page, 1.0).value
    if outcome in ("unknown", "gone"):
        raise HTTPException({"unknown": 404, "gone": 410}[outcome], f"page {page}: no click is awaited")
    return {"outcome": outcome}
