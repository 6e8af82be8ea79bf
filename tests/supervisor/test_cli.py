"""The command line: help, refusals, and commands that need nothing but Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tandem
from tandem.shared.memory.control import Control
from tandem.shared.memory.processes import module_command, own_identity
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


def test_the_version_of_the_package() -> None:
    """`ctl --version` and `-V` print it, without an environment."""
    for option in ("--version", "-V"):
        words = [sys.executable, "-S", str(ROOT / "ctl"), option]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout, result.stderr) == (0, f"tandem {tandem.__version__}\n", "")


SHADOWS = ("abc", "argparse", "difflib", "json", "logging", "os", "queue", "random", "shlex", "socket", "stat", "token",
           "types", "typing")  # fmt: skip


def shadow(folder: Path) -> None:
    """Put files with names of the standard library into a folder."""
    for name in SHADOWS:
        text = f"raise SystemExit('{name}.py of the folder was imported')\n"
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def test_files_beside_ctl_or_in_the_working_folder_shadow_nothing(tmp_path: Path) -> None:
    """Neither the folder of `ctl` nor the working folder comes before the standard library."""
    (tmp_path / "ctl").write_bytes((ROOT / "ctl").read_bytes())
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "link").symlink_to("ctl")
    shadow(tmp_path)
    for name in ("ctl", "link"):
        for words in (["checkpoints", "--json"], ["instances", "--json"], ["stauts"]):
            command = [sys.executable, "-S", str(tmp_path / name), *words]
            result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert "of the folder" not in result.stdout + result.stderr
            assert result.returncode == (2 if words == ["stauts"] else 0), result.stderr


@pytest.mark.parametrize("is_old", [False, True])
def test_a_module_that_is_run_does_not_import_from_the_working_folder(tmp_path: Path, is_old: bool) -> None:
    """With the option of newer interpreters and the way for older ones, and named by hand with `python -m`."""
    if not is_old and sys.version_info < (3, 11):
        pytest.skip("this interpreter has no option for it")
    shadow(tmp_path)
    module = "tandem.supervisor"
    for command in (module_command(module, "--help", is_old=is_old), [sys.executable, "-m", module, "--help"]):
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (result.returncode, result.stderr) == (0, ""), command


def test_a_folder_is_searched_last_if_it_is_asked_for(tmp_path: Path) -> None:
    """Its own modules are found, and those of the standard library are not shadowed."""
    shadow(tmp_path)
    (tmp_path / "played.py").write_text("import json, sys; print(json.dumps(sys.argv[1:]))\n", encoding="utf-8")
    command = module_command("played", "a", "-m", beside=str(tmp_path))
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == '["a", "-m"]\n'


@pytest.mark.parametrize("command", ["up", "config", "doctor", "demo", "reload"])
def test_a_configuration_that_does_not_exist_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped `--config` never means the defaults."""
    assert cli.main([command, "--config", "no-such-file.yaml"]) == 2
    assert "no-such-file.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["version", "status", "down", "pause", "clean"])
def test_an_empty_instance_name_is_refused(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--instance ''` is no name, and an empty TANDEM_INSTANCE is not the default one; one line says so."""
    monkeypatch.setenv("TANDEM_INSTANCE", "")
    for words in ([command, "--instance", ""], *([[command]] if command != "clean" else [])):
        assert cli.main(words) == 2
        text = capsys.readouterr().err
        assert "TANDEM_INSTANCE is set to nothing" in text
        assert len(text.splitlines()) == 1


def test_a_removed_working_folder_is_named(tmp_path: Path) -> None:
    """Commands that need the folder say what is wrong in one line; the others work."""
    program = "import os, sys; os.rmdir(os.getcwd()); from tandem.supervisor.cli import main; sys.exit(main())"
    for command, status, text in (("up", 1, "working folder was removed"), ("version", 1, "nothing runs")):
        folder = tmp_path / command
        folder.mkdir()
        words = [sys.executable, "-c", program, command, "--instance", "nothing-of-this-name"]
        result = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert (result.returncode, len(result.stderr.splitlines())) == (status, 1), result.stderr
        assert text in result.stderr


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
