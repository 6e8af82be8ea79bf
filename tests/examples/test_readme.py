"""The program in the README."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tandem.supervisor import view

from .conftest import ROOT


@pytest.fixture
def down(instance_name: str, tmp_path: Path) -> Iterator[None]:
    """Stops the instance after the test."""
    yield
    subprocess.run(
        [sys.executable, "-m", "tandem.supervisor", "down", "--instance", instance_name],
        cwd=tmp_path, check=True, capture_output=True, timeout=60,
    )  # fmt: skip


@pytest.mark.usefixtures("down")
def test_the_readmes_program_runs(instance_name: str, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    """Copied as it stands, `ctl up` starts it and the version rises."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    program, config = re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL)[:2]
    (tmp_path / "lights.py").write_text(program, encoding="utf-8")
    (tmp_path / "lights.yaml").write_text(config, encoding="utf-8")
    started = subprocess.run(
        [sys.executable, "-m", "tandem.supervisor", "up", "-d", "--instance", instance_name, "--config", "lights.yaml"],
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    assert len(program.splitlines()) < 30
    wait_until(lambda: view.status(instance_name)["model_version"] >= 2, "two versions", 60)
    assert view.status(instance_name)["inference"]["state"] == "running"
