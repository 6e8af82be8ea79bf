"""Two uvicorn workers, rewards at the one that did not decide."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from .conftest import Example

LOAD = [0.1, 0.9, 0.4]


def test_a_reward_completes_the_other_workers_decision_once(
    example: Callable[[str], Example], wait_until: Callable[..., Any]
) -> None:
    """Every decision is completed exactly once, whichever worker heard of its reward and however often."""
    router = example("two_workers")
    router.up()
    wait_until(lambda: sum(bool(pid) for pid in owners(router)) == 2, "both workers")
    crossed = decisions = 0
    workers: set[int] = set()

    def one_more() -> bool:
        nonlocal crossed, decisions
        key = f"request-{decisions}"
        made = router.post("/decide", {"key": key, "load": LOAD}).json()
        decisions += 1
        answer = router.post("/reward", {"key": key, "value": 0.5}).json()
        assert answer["matched"], "the first reward finds its decision"
        crossed += answer["worker"] != made["worker"]
        workers.update((answer["worker"], made["worker"]))
        return crossed >= 8 and len(workers) == 2

    wait_until(one_more, "rewards at the other worker", 60)
    wait_until(lambda: router.stats["completed"] == decisions, "every decision completed")
    assert not router.post("/reward", {"key": "request-0", "value": -1.0}).json()["matched"]
    stats = router.stats
    assert (stats["decided"], stats["completed"], stats["pending_count"]) == (decisions, decisions, 0)
    assert stats["delivered"] == crossed
    wait_until(lambda: router.status["model_version"] >= 3, "three versions")


def test_a_dead_workers_lane_is_taken_over(example: Callable[[str], Example], wait_until: Callable[..., Any]) -> None:
    """A killed worker is replaced by uvicorn, and what waited in its lane is still rewarded."""
    router = example("two_workers")
    router.up()
    wait_until(lambda: sum(bool(pid) for pid in owners(router)) == 2, "both workers")
    made = router.post("/decide", {"key": "survivor", "load": LOAD}).json()
    os.kill(made["worker"], signal.SIGKILL)
    wait_until(lambda: len({pid for pid in owners(router) if pid} - {made["worker"]}) == 2, "two workers again", 60)
    assert router.post("/reward", {"key": "survivor", "value": 0.25}).json()["matched"]
    wait_until(lambda: router.stats["completed"] == 1, "the decision completed")


def owners(router: Example) -> list[int]:
    """The worker that serves each lane; 0 for none."""
    from tandem.supervisor.display import status

    control = status.open_control(router.instance)
    assert control is not None
    try:
        return [control.get(f"lane.{lane}.ready") for lane in range(control.get("lanes"))]
    finally:
        control.close()
