"""Handwritten digits, told only right or wrong."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable

import pytest

from .conftest import ROOT, Example

pytest.importorskip("sklearn")


def test_it_learns_to_read(example: Callable[[str], Example]) -> None:
    """In a tenth of the README's run: the share of right answers rises far above chance, also of unseen images."""
    digits = example("digits")
    digits.up()
    played = digits.run(sys.executable, "examples/digits/play.py", "--images", "1200", "--out", "right.json")
    assert played.returncode == 0, played.stderr
    found = re.search(
        r"first (\d+) (\S+) were right, of the last \d+ (\S+), of 297 never rewarded (\S+)$", played.stdout
    )
    assert found, played.stdout
    right = json.loads((digits.folder / "right.json").read_text(encoding="utf-8"))
    assert len(right) == digits.stats["completed"] == 1200
    assert sum(right[-200:]) > 2 * sum(right[:200])
    assert float(found[4]) > 0.4


def test_its_picture_is_small() -> None:
    """The plot that the README shows."""
    assert 1000 < (ROOT / "examples" / "digits" / "learning.png").stat().st_size < 60_000
