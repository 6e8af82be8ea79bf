"""The settings in force, where they come from, and what a reload changes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tandem.shared.configuration.config import load
from tandem.supervisor import cli
from tandem.supervisor.commands import reload
from tandem.supervisor.commands.completion import script


def test_each_setting_names_its_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A setting of the file names the file, flat keys included; every other one says `default`."""
    path = tmp_path / "a.yaml"
    path.write_text("batch_size: 16\ninference: {port: 8020}\n", encoding="utf-8")
    assert cli.main(["config", "--config", str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["trainer.batch_size"] == {"value": 16, "origin": str(path)}
    assert shown["inference.port"] == {"value": 8020, "origin": str(path)}
    assert shown["trainer.learning_rate"]["origin"] == "default"
    assert shown["settings"] == {"value": {}, "origin": "default"}


def test_check_judges_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` ends with 0 for a good file, 2 with all problems for a bad one, 1 if there is none."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("trainer: {batch_size: 16}\n", encoding="utf-8")
    bad.write_text("trainer: {batch_size: 0, thread: 2}\n", encoding="utf-8")
    assert cli.main(["config", "--check", str(good)]) == 0
    assert cli.main(["config", "--check", str(bad)]) == 2
    errors = capsys.readouterr().err
    assert "trainer.batch_size: 0" in errors
    assert "trainer.thread" in errors
    assert cli.main(["config", "--check", str(tmp_path / "none.yaml")]) == 1


def test_changes_are_told_apart(tmp_path: Path) -> None:
    """Settings that may change while running are told from those that need a restart; only the former are merged."""
    path = tmp_path / "a.yaml"
    path.write_text("trainer: {batch_size: 16, buffer_capacity: 77}\n", encoding="utf-8")
    old, new = load(None), load(path)
    live, fixed = reload.changes(old, new)
    assert live == {"trainer.batch_size": (32, 16)}
    assert fixed == {"trainer.buffer_capacity": (10000, 77)}
    merged = reload.merged(old, new, live)
    assert merged["trainer"]["batch_size"] == 16  # type: ignore[index]
    assert merged["trainer"]["buffer_capacity"] == 10000  # type: ignore[index]


def test_the_completion_is_good_shell() -> None:
    """bash accepts the script, and it completes a command and an option."""
    program = script() + (
        'COMP_WORDS=(ctl sta); COMP_CWORD=1; _tandem_ctl; echo "${COMPREPLY[@]}"\n'
        'COMP_WORDS=(ctl version --wa); COMP_CWORD=2; _tandem_ctl; echo "${COMPREPLY[@]}"\n'
    )
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["status", "--watch --wait"]
