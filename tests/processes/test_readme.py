"""The programs of the README do what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .conftest import ROOT, Ctl


def test_the_complete_program_learns(ctl: Ctl, wait_until: Callable[..., Any]) -> None:
    """The README's program and configuration, copied as they are, start, decide, and are learned from."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (configuration,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    assert len(program.splitlines()) < 30
    (ctl.folder / "lights.py").write_text(program, encoding="utf-8")
    (ctl.folder / "lights.yaml").write_text(configuration, encoding="utf-8")
    started = ctl("up", "-d", "--config", "lights.yaml")
    assert started.returncode == 0, started.stderr
    wait_until(lambda: ctl.status["model_version"] >= 2, "two versions")
    assert ctl.status["buffer"]["size"] > 8
