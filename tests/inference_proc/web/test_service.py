"""What the service does beside answering: it says that it turns, and gives up what has waited too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tandem.inference_proc.engine import Engine
from tandem.inference_proc.web.service import Service

WAITING = 11_000


def test_requests_are_answered_while_very_many_decisions_expire(toy_instance: Callable[..., Any]) -> None:
    """When the timeout comes for thousands of decisions at once the event loop goes on turning between them."""
    made = toy_instance(inference={"pending_capacity": 2 * WAITING, "pending_timeout": 3600.0})
    engine = Engine.attach(made.name)
    name = f"lane.{engine.lane.index}.pending"
    for start in range(0, WAITING, 1000):
        engine.decide_many([(f"key{start + number}", [0.0, 0.0, 0.0, 1.0], "") for number in range(1000)])
    assert engine.control.get(name) == WAITING
    engine._recorder._pending_timeout = 0.0
    engine._recorder._next_expiry = 0

    async def watch() -> set[int]:
        service, seen = Service(engine), set()
        await service.start()
        while left := engine.control.get(name):
            seen.add(left)
            await asyncio.sleep(0)
        await service.stop()
        return seen

    try:
        stages = asyncio.run(asyncio.wait_for(watch(), 60))
        assert len([left for left in stages if left < WAITING]) > 10, sorted(stages)
        assert engine.get_stats()["expired"] == WAITING
    finally:
        engine.close()


def test_a_stopped_service_has_ended_its_beat(toy_instance: Callable[..., Any]) -> None:
    """Nothing of the service runs when `stop` returns, so that the engine may be closed; a failure ends no beat."""
    engine = Engine.attach(toy_instance().name)
    beats: list[str] = []

    def beat() -> None:
        beats.append("begun")
        if len(beats) == 1:
            raise ValueError("the first fails")
        beats.append("ended")

    engine.beat = beat  # type: ignore[method-assign]

    async def turn() -> None:
        service = Service(engine)
        await service.start()
        while len(beats) < 3:
            await asyncio.sleep(0.01)
        await service.stop()

    try:
        asyncio.run(asyncio.wait_for(turn(), 60))
        assert beats[-1] == "ended"
    finally:
        engine.close()
