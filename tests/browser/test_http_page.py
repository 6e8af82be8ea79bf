"""The JavaScript of docs/http.md, run as it stands by a browser on a page of the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from server_kit import serving

pytestmark = pytest.mark.browser

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")


def test_the_javascript_of_the_page_decides_and_rewards(browser: Any, tmp_path: Path) -> None:
    """Its decision is recorded with its reward."""
    block = re.search(r"```js\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    with serving(tmp_path) as running:
        page = browser.new_page()
        page.goto(f"{running.url}/livez")
        script = f"async () => {{ const base = '{running.url}'; {block[1]}\nreturn [decision, reward]; }}"
        decision, reward = page.evaluate(script)
        page.close()
        assert decision["labels"][0] in ("red", "green", "blue")
        assert reward == {"decision_id": decision["decision_id"], "matched": True, "counted": True}
        assert running.engine.get_stats()["completed"] == 1
