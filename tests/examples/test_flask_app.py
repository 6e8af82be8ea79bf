"""Flask behind gunicorn: forked workers with an engine each, their beats, and the dashboard beside them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from .conftest import Example

pytest.importorskip("flask")
pytest.importorskip("gunicorn")

VISIT = [0.8, 1, 0.2]


def lanes(teasers: Example, field: str) -> list[int]:
    """One field of each lane."""
    from tandem.supervisor.display import status

    control = status.open_control(teasers.instance)
    assert control is not None
    try:
        return [control.get(f"lane.{lane}.{field}") for lane in range(control.get("lanes"))]
    finally:
        control.close()


def test_preloaded_workers_decide_learn_and_show_a_dashboard(
    example: Callable[[str], Example], wait_until: Callable[..., Any]
) -> None:
    """Each worker attaches after the fork and beats; a reward counts once wherever it arrives; a killed worker is
    replaced; the dashboard is one redirect away, and it learns."""
    teasers = example("flask_app")
    teasers.up()
    wait_until(lambda: all(lanes(teasers, "ready")), "two workers and the dashboard", 60)
    before = lanes(teasers, "progress")
    wait_until(
        lambda: all(now > then for now, then in zip(lanes(teasers, "progress"), before, strict=True)), "three beats"
    )
    workers: set[int] = set()
    crossed = decisions = 0

    def one_more() -> bool:
        nonlocal crossed, decisions
        key = f"visit-{decisions}"
        made = teasers.post("/teaser", {"key": key, "visit": VISIT}).json()
        decisions += 1
        answer = teasers.post("/clicked", {"key": key, "value": 1}).json()
        assert answer["matched"], "the reward finds its decision"
        crossed += answer["worker"] != made["worker"]
        workers.update((answer["worker"], made["worker"]))
        return crossed >= 3 and len(workers) == 2

    wait_until(one_more, "rewards at the other worker", 60)
    wait_until(lambda: teasers.stats["completed"] == decisions, "every decision completed")
    assert not teasers.post("/clicked", {"key": "visit-0", "value": 1}).json()["matched"]
    wait_until(lambda: teasers.status["model_version"] >= 3, "three versions")

    refused = teasers.post("/teaser", {"key": "bad", "visit": [0.8, "x", 0.2]})
    assert refused.status_code == 400
    assert teasers.stats["decided"] == decisions

    link = teasers.get("/dashboard").headers["location"]
    page = httpx.get(link, trust_env=False)
    assert page.status_code == 200
    assert "<html" in page.text

    waiting = teasers.post("/teaser", {"key": "survivor", "visit": VISIT}).json()
    os.kill(waiting["worker"], signal.SIGKILL)
    wait_until(lambda: waiting["worker"] not in lanes(teasers, "ready"), "another worker", 60)
    assert teasers.post("/clicked", {"key": "survivor", "value": 0.5}).json()["matched"]
    wait_until(lambda: teasers.stats["completed"] == decisions + 1, "the survivor completed")
