"""`ctl new`: what it makes works as its README says, and learns."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tandem.supervisor.commands.new import fault_of

from .conftest import ROOT, Ctl


def new(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`./ctl new`, run from a clone without entering its environment."""
    command = [str(ROOT / "ctl"), "new", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.timeout(300)
def test_a_new_application_learns_within_a_minute(ctl: Ctl, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    """Made, started, sent visitors: the share of best banners doubles, as the README says. Its own test passes."""
    made = new(tmp_path, "banners")
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "banners"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "banners.py", "config.yaml", "simulate.py", "test_application.py",
    ]  # fmt: skip
    assert not any("NAME" in path.read_text(encoding="utf-8") for path in folder.iterdir())
    assert "up -d --instance banners" in (folder / "README.md").read_text(encoding="utf-8")
    started = ctl("up", "-d", "--config", str(folder / "config.yaml"), "--port", "0")
    assert started.returncode == 0, started.stderr
    url = ctl.status["url"]
    command = [sys.executable, "simulate.py", "--url", url, "--seconds", "16", "--rate", "150"]
    played = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert played.returncode == 0, played.stderr
    shares = [int(share) for share in re.findall(r"(\d+)% of", played.stdout)]
    assert len(shares) >= 3, played.stdout
    assert shares[-1] >= 67, played.stdout
    own = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tested = subprocess.run(own, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert tested.returncode == 0, tested.stdout


def test_what_is_there_stays(tmp_path: Path) -> None:
    """A folder of that name is not touched, and a folder that is not there is named."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine").write_text("kept", encoding="utf-8")
    refused = new(tmp_path, "shop")
    assert refused.returncode == 1
    assert "is there already" in refused.stderr
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["mine"]
    refused = new(tmp_path, "shop", "--folder", "nowhere")
    assert refused.returncode == 1
    assert "nowhere is no folder" in refused.stderr
    assert new(tmp_path, "other", "--folder", "shop").returncode == 0
    assert (tmp_path / "shop" / "other" / "other.py").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]


@pytest.mark.parametrize("name", ["", "my shop", "1st", "class", "json", "tandem", "simulate", "../x", "shop.x", "é"])
def test_names_that_do_not_work_are_refused(name: str) -> None:
    """No module can have the name, or another one has it."""
    assert fault_of(name)
