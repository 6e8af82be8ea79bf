"""docs/http.md says what works: its shell lines and its Python are run as they stand."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, Ctl
from .test_new import new

PAGE = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")


def block(language: str, word: str) -> str:
    """The first block of a language that has a word in it."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return next(text for text in found if word in text)


@pytest.mark.timeout(300)
def test_with_curl_alone_the_share_of_right_decisions_doubles(ctl: Ctl, tmp_path: Path) -> None:
    """An application of `ctl new` is started, decided and rewarded by the page's shell lines; then its other blocks."""
    assert new(tmp_path, "banners").returncode == 0
    started = ctl("up", "-d", "--config", str(tmp_path / "banners" / "config.yaml"), "--port", "0")
    assert started.returncode == 0, started.stderr
    url = ctl.status["url"]
    script = block("bash", "seq 300").replace("url=http://127.0.0.1:8010", f"url={url}")
    command = ["bash", "-c", script]
    played = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    right = [int(line.split()[-1]) for line in played.stdout.splitlines()]
    assert len(right) == 300, played.stderr
    assert sum(right[-80:]) >= 54, right
    page = block("sh", "/v1/decide").replace("localhost:8010", url.removeprefix("http://"))
    page = page.replace("[1.5, -2.0]", "[1.5, -2.0, 0]")
    answer = subprocess.run(["bash", "-c", page], capture_output=True, text=True, timeout=30, check=True).stdout
    assert set(re.findall(r'"(\w+)":', answer)) == set(re.findall(r'"(\w+)":', block("json", '"decision_id"')))
    names: dict[str, Any] = {"url": url}
    exec(block("python", "tandem.client").replace("[1.5, -2.0]", "[1.5, -2.0, 0]"), names)
    assert names["decision"].labels[0] in ("welcome", "discount", "news")
