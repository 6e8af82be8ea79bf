"""The engine in a FastAPI application of the user's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.sync.client import connect

from .conftest import Example

pytest.importorskip("fastapi")


def test_the_shop_decides_and_keeps_its_own_routes(
    example: Callable[[str], Example], wait_until: Callable[..., Any]
) -> None:
    """Its routes, its refusals and Tandem's endpoints answer side by side; a visit rewards the last offer."""
    shop = example("fastapi_app")
    shop.up()
    assert shop.post("/orders", None).json() == {"orders": 1}
    assert shop.post("/orders", None).json() == {"orders": 2}

    visits = [shop.post("/visits/anna", {"basket": 0.9, "spent": spent, "hour": 9}).json() for spent in (0.1, 0.6)]
    assert visits[0]["last_reward"] is None
    assert visits[1]["last_reward"] == pytest.approx(0.5, abs=0.21)
    assert all(visit["offer"] in ("nothing", "coupon", "free delivery") for visit in visits)

    before = shop.stats["decided"]
    refused = shop.post("/visits/anna", {"basket": 2.0, "spent": 0.1, "hour": 9})
    assert (refused.status_code, shop.stats["decided"]) == (422, before)
    assert shop.post("/visits/anna", {"basket": "much"}).status_code == 422

    for number in range(20):
        shop.post(f"/visits/customer-{number}", {"basket": 0.05, "spent": 0.0, "hour": number})
    stats = shop.stats
    assert stats["decided"] == 22
    assert stats["wait_count"] > 0, "some offers are dearer than the basket"
    assert stats["completed"] + stats["pending_count"] == 22
    wait_until(lambda: shop.get("/learning").json()["version"] >= 3, "three versions")

    assert shop.get("/tandem/health").status_code == 200
    assert shop.get("/tandem/dashboard").status_code == 200
    assert shop.get("/health").status_code == 404
    with connect(f"ws://127.0.0.1:{shop.port}/tandem/ws", proxy=None) as socket:
        observation = {"basket": 0.5, "spent": 0.5, "hour": 12}
        socket.send(json.dumps({"type": "decide", "key": "bert", "observation": observation}))
        assert json.loads(socket.recv(10))["type"] == "decision"
    assert shop.get("/docs").status_code == 200


def test_the_server_is_supervised(example: Callable[[str], Example], wait_until: Callable[..., Any]) -> None:
    """`ctl` takes it for ready because the service was started, and `ctl down` ends its lifespan."""
    shop = example("fastapi_app")
    shop.up()
    assert shop.status["inference"]["state"] == "running"
    assert shop.ctl("down").returncode == 0
    log = (shop.folder / "data" / shop.instance / "logs" / "inference.log").read_text(encoding="utf-8")
    assert "Application shutdown complete" in log
    assert "Traceback" not in log
