"""The command line: help, refusals, and commands that need nothing but Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tandem.shared.control import Control
from tandem.shared.processes import own_identity
from tandem.supervisor import cli
from tandem.supervisor.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def script(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the clone's `ctl`."""
    return subprocess.run([str(ROOT / "ctl"), *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` of each command shows an example and its exit statuses."""
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"ctl {name}" in text
    assert "example:" in text
    assert "exit status:" in text


def test_an_unknown_command_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped command ends with status 2 and names the nearest one."""
    assert cli.main(["stauts"]) == 2
    assert "status" in capsys.readouterr().err


def test_a_bad_instance_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that could leave the folder of segments ends with status 2."""
    assert cli.main(["version", "--instance", "../etc"]) == 2
    assert "is not a name" in capsys.readouterr().err


def test_version_prints_the_counter_and_nothing_else(instance_name: str) -> None:
    """`version` prints the number of a living instance, and one line on standard error when nothing runs."""
    nothing = script("version", "--instance", instance_name)
    assert (nothing.returncode, nothing.stdout, len(nothing.stderr.splitlines())) == (1, "", 1)
    pid, ticks = own_identity()
    values: dict[str, int | float] = {"lanes": 1, "supervisor.pid": pid, "supervisor.start_ticks": ticks}
    control = Control.create(instance_name, {**values, "version": 1234}, {})
    assert script("version", "--instance", instance_name).returncode == 1, "an unfinished segment is nothing"
    control.finish()
    result = script("version", "--instance", instance_name)
    assert (result.returncode, result.stdout, result.stderr) == (0, "1234\n", "")
    control.set("supervisor.start_ticks", ticks + 1)
    assert script("version", "--instance", instance_name).returncode == 1, "nobody of it lives"
    control.close()


def test_quick_commands_import_nothing_heavy(instance_name: str) -> None:
    """`version` and `status` run without site-packages, argparse, json and typing."""
    program = (
        "import sys; tandem = type(sys)('tandem'); tandem.__path__ = [sys.argv[1]]; sys.modules['tandem'] = tandem;"
        "from tandem.supervisor.cli import main; main(sys.argv[2:]);"
        "print([m for m in ('argparse', 'json', 'typing', 'hashlib', 'logging', 'yaml', 'torch') if m in sys.modules])"
    )
    for command in ("version", "status"):
        words = [sys.executable, "-S", "-c", program, str(ROOT / "src"), command, "--instance", instance_name]
        result = subprocess.run(words, capture_output=True, text=True, check=True)
        assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_needs_no_packages(name: str) -> None:
    """`./ctl NAME --help` works before there is an environment, with the standard library alone."""
    words = [sys.executable, "-S", str(ROOT / "ctl"), name, "--help"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "example:" in result.stdout


def test_the_script_and_the_package_are_one_program() -> None:
    """`./ctl` loads the package under its own name, so no module is ever loaded twice."""
    program = "import runpy, sys; sys.argv = ['ctl', '--help']; runpy.run_path(sys.argv.pop(1) if 0 else 'ctl')"
    result = subprocess.run([sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert script("--help").stdout == cli.overview() + "\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`ctl --help | head -1` ends without a traceback."""
    line = f"{ROOT / 'ctl'} --help | head -1"
    result = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert result.stderr == ""
