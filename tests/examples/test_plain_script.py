"""The class alone, in a script."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from .conftest import ROOT, Example


def test_the_script_learns(example: Callable[[str], Example]) -> None:
    """Every decision is completed, the version rises, and what is earned rises with it."""
    plain = example("plain_script")
    plain.up()
    result = plain.run(sys.executable, "examples/plain_script/main.py", "8")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found = re.fullmatch(r"version (\d+): (\d+) decisions; the first 200 earned (\S+), the last (\S+)\n", result.stdout)
    assert found, result.stdout
    version, decisions, first, last = int(found[1]), int(found[2]), float(found[3]), float(found[4])
    assert version >= 50
    assert last > first + 0.1
    stats = plain.stats
    assert (stats["decided"], stats["completed"], stats["pending_count"]) == (decisions, decisions, 0)


def test_it_is_short() -> None:
    """Application, configuration and program together have fewer than 60 lines."""
    folder = ROOT / "examples" / "plain_script"
    files = [path for path in folder.iterdir() if path.suffix in (".py", ".yaml")]
    assert len(files) == 3
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < 60


def test_without_an_instance_it_says_so(example: Callable[[str], Example], instance_name: str) -> None:
    """A program that attaches to nothing ends with an error that names the instance, after the time it was given."""
    plain = example("plain_script")
    code = f"from tandem.inference_proc.engine import Engine; Engine.attach({instance_name!r}, timeout=0.2)"
    result: Any = plain.run(sys.executable, "-c", code)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert "SegmentMissing" in last
    assert instance_name in last
