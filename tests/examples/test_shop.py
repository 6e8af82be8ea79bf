"""A shop that learns which product to show from clicks that come late, and from nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .conftest import ROOT, Example

pytest.importorskip("fastapi")


def test_the_shop_learns_from_clicks(example: Callable[[str], Example], wait_until: Callable[..., Any]) -> None:
    """A tenth of the README's run: what it shows is clicked on clearly more often than what chance would show."""
    shop = example("shop")
    shop.up()
    folder = shop.path
    words = ("--url", f"http://127.0.0.1:{shop.port}", "--visits", "1600", "--out", "earned.json")
    played = shop.run(sys.executable, str(folder / "simulate.py"), *words)
    assert played.returncode == 0, played.stderr
    shown, by_chance, best = np.array(json.loads((shop.folder / "earned.json").read_text(encoding="utf-8"))).T
    assert shown[-400:].mean() > 1.15 * by_chance[-400:].mean()
    assert best.max() <= 0.3
    # Who did not click is known by the time alone; one decision is one experience.
    wait_until(lambda: shop.stats["completed"] == 1600, "every visit has earned something")
    assert 0 < shop.stats["defaulted"] < 1600

    assert shop.post("/pages/4f0c2d9a7b31e8d5-0000000000000001/click", None).status_code == 404
    assert shop.post("/pages", {"interests": [0.0] * 11}).status_code == 422
    assert shop.get("/tandem/dashboard").status_code == 200


def test_its_picture_is_small() -> None:
    """The plot that the README shows."""
    assert 1000 < (ROOT / "examples" / "shop" / "learning.png").stat().st_size < 60_000
