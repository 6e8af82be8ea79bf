"""The environment of a clone: made once, made again when it must be, and by one at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tandem.supervisor.setup import environment

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a lock file that needs no package, and a project that is quickly installed."""
    (tmp_path / "requirements.lock").write_text("# nothing\n", encoding="utf-8")
    (tmp_path / "requirements-test.lock").write_text("# nothing either\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def calls(clone: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the set-up, which are noted; only the making of the environment itself is played."""
    noted: list[list[str]] = []

    def call(command: list[str], remedy: str) -> None:
        noted.append(command)
        if "venv" in command:
            folder = clone / ".venv" / "bin"
            folder.mkdir(parents=True)
            (folder / "python").symlink_to(sys.executable)

    monkeypatch.setattr(environment, "_call", call)
    return noted


def test_the_second_use_costs_nothing(clone: Path, calls: list[list[str]]) -> None:
    """The first use makes the environment and installs; the second starts no process."""
    python = environment.ensure(str(clone))
    assert os.access(python, os.X_OK)
    assert ["venv" in call for call in calls] == [True, False, False]
    calls.clear()
    assert environment.ensure(str(clone)) == python
    assert not calls


def test_a_changed_lock_file_is_installed_again(clone: Path, calls: list[list[str]]) -> None:
    """A change of the lock file installs again into the same environment."""
    environment.ensure(str(clone))
    calls.clear()
    (clone / "requirements.lock").write_text("# something else\n", encoding="utf-8")
    environment.ensure(str(clone))
    assert len(calls) == 2
    assert str(clone / "requirements.lock") in calls[0]
    assert not any("venv" in call for call in calls)


def test_test_packages_come_when_they_are_asked_for(clone: Path, calls: list[list[str]]) -> None:
    """Only `test` installs the test packages, and then nothing else."""
    environment.ensure(str(clone))
    calls.clear()
    environment.ensure(str(clone), tests=True)
    assert len(calls) == 1
    assert str(clone / "requirements-test.lock") in calls[0]


def test_an_interrupted_set_up_is_done_again(
    clone: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set-up that failed half way leaves no stamp: the next use repeats it."""
    played = environment._call

    def fail(command: list[str], remedy: str) -> None:
        if "pip" in command:
            raise environment.SetupFailed("no network")
        played(command, remedy)

    monkeypatch.setattr(environment, "_call", fail)
    with pytest.raises(environment.SetupFailed):
        environment.ensure(str(clone))
    monkeypatch.setattr(environment, "_call", played)
    calls.clear()
    environment.ensure(str(clone))
    assert len(calls) == 2


def test_two_first_uses_take_turns(clone: Path) -> None:
    """Two first uses at once make one environment; the second waits and then finds it."""
    program = (
        "import sys, os, time; from tandem.supervisor.setup import environment as e\n"
        "root = sys.argv[1]\n"
        "def call(command, remedy):\n"
        "    open(os.path.join(root, 'calls'), 'a').write('x')\n"
        "    if 'venv' in command:\n"
        "        os.makedirs(os.path.join(root, '.venv', 'bin'))\n"
        "        os.symlink(sys.executable, os.path.join(root, '.venv', 'bin', 'python'))\n"
        "    time.sleep(0.2)\n"
        "e._call = call\n"
        "e.ensure(root)\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, str(clone)], stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert (clone / "calls").read_text() == "xxx"


def test_the_lock_files_pin_everything_exactly() -> None:
    """Every line of the lock files pins one version, and names neither a registry nor a CUDA library."""
    for name in ("requirements.lock", "requirements-test.lock"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("#"):
                continue
            requirement, _, marker = line.partition(" ; ")
            package, _, version = requirement.partition("==")
            assert package.replace("-", "").replace("_", "").isalnum(), line
            assert version.replace(".", "").isalnum(), line
            assert not marker or marker.startswith("python_version"), line
            assert "nvidia" not in package
