"""A threaded server that shares one engine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .conftest import Example


def test_no_record_is_lost(example: Callable[[str], Example], wait_until: Callable[..., Any]) -> None:
    """Threads decide and reward at once: every decision is counted, completed by its reward, or still pending."""
    cache = example("threaded")
    cache.up()

    def visit(number: int) -> bool:
        key = f"document-{number}"
        made = cache.post("/decide", {"key": key, "document": [number / 400, 0.5, 0.1]})
        assert len(made.json()["action"]) == 2
        return number % 4 == 0 or cache.post("/reward", {"key": key, "value": 0.5}).json()["matched"]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(visit, range(400)))
    stats = cache.stats
    assert (stats["decided"], stats["completed"], stats["pending_count"], stats["errors"]) == (400, 300, 100, 0)
    wait_until(lambda: cache.status["model_version"] >= 3, "three versions")


def test_a_bad_request_is_refused(example: Callable[[str], Example]) -> None:
    """With 400, and the next good one is answered; a reward for nothing is not matched."""
    cache = example("threaded")
    cache.up()
    assert cache.post("/decide", {"key": "a"}).status_code == 400
    assert cache.post("/decide", {"key": "a", "document": "text"}).status_code == 400
    assert cache.post("/elsewhere", {}).status_code == 404
    assert cache.post("/reward", {"key": "a", "value": 1.0}).json() == {"matched": False}
    assert cache.post("/decide", {"key": "a", "document": [0.1, 0.2, 0.3]}).status_code == 200


def test_it_ends_when_asked(example: Callable[[str], Example]) -> None:
    """`ctl down` needs no force, and what is pending is kept for the next start."""
    cache = example("threaded")
    cache.up()
    cache.post("/decide", {"key": "later", "document": [0.1, 0.2, 0.3]})
    assert cache.ctl("down").returncode == 0
    logs = cache.folder / "data" / cache.instance / "logs"
    assert "killed" not in (logs / "supervisor.log").read_text(encoding="utf-8")
    assert "Traceback" not in (logs / "inference.log").read_text(encoding="utf-8")
