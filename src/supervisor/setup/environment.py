"""The environment of a clone: `.venv`, made on first use from the lock files and made again when they change.

Standard library only. A stamp beside the packages holds the text of the lock file they were installed from; it is
written last, so that an interrupted set-up is done again. Two first uses at once take turns by a flock on the clone's
folder.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

from ...shared.memory.processes import module_command

FOLDER = ".venv"
PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.10")
OLDEST, NEWEST = (3, 10), (3, 13)


def enter(root: str, words: list[str], tests: bool = False) -> int:
    """Replace this process by the same command inside of the clone's environment, which is made first if need be.

    Returns an exit status only if the environment cannot be made.
    """
    try:
        python = ensure(root, tests)
    except SetupFailed as error:
        print(f"ctl: {error}", file=sys.stderr)
        return 1
    sys.stdout.flush()
    is_old = os.path.isdir(os.path.join(root, FOLDER, "lib", "python3.10"))
    os.execv(python, module_command("tandem.supervisor", *words, python=python, is_old=is_old))


class SetupFailed(Exception):
    """The environment could not be made; the message says what to do."""


def ensure(root: str, tests: bool = False) -> str:
    """Path of the environment's Python, after making or mending the environment."""
    python = os.path.join(root, FOLDER, "bin", "python")
    if not _missing(root, tests):
        return python
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another ctl is setting up the environment; waiting for it")
            fcntl.flock(folder, fcntl.LOCK_EX)
        _set_up(root, python, _missing(root, tests))
    finally:
        os.close(folder)
    return python


def _wanted(root: str, name: str) -> str:
    # A clone that was moved has to be installed again: the editable installation names its folder.
    with open(os.path.join(root, name), encoding="utf-8") as file:
        return f"# {root}\n{file.read()}"


def _stamp(root: str, name: str) -> str:
    return os.path.join(root, FOLDER, f".{name}.installed")


def _missing(root: str, tests: bool) -> list[str]:
    """The lock files whose packages are not installed."""
    missing = []
    for name in ("requirements.lock", "requirements-test.lock") if tests else ("requirements.lock",):
        try:
            with open(_stamp(root, name), encoding="utf-8") as file:
                done = file.read() == _wanted(root, name)
        except OSError:
            done = False
        if not done or not os.access(os.path.join(root, FOLDER, "bin", "python"), os.X_OK):
            missing.append(name)
    return missing


def _set_up(root: str, python: str, missing: list[str]) -> None:
    steps = len(missing) + (1 if "requirements.lock" in missing else 0)
    if not missing:
        return
    step = 1
    if not _works(python):
        steps += 1
        base = find_python()
        _say(f"[{step}/{steps}] making {FOLDER} with {base}")
        _call(
            [base, "-I", "-m", "venv", "--clear", os.path.join(root, FOLDER)],
            "install the system's python3-venv package",
        )
        step += 1
    for name in missing:
        _say(f"[{step}/{steps}] installing the packages of {name}" + (" (torch is large)" if step < 3 else ""))
        words = ["install", "--disable-pip-version-check", "-r", os.path.join(root, name)]
        _call([python, "-I", "-m", "pip", *words], "see pip's message above")
        step += 1
    if "requirements.lock" in missing:
        _say(f"[{step}/{steps}] installing Tandem itself")
        _call(
            [python, "-I", "-m", "pip", "install", "--disable-pip-version-check", "--quiet",
             "--no-deps", "--no-build-isolation", "--editable", root],
            "see pip's message above",
        )  # fmt: skip
    for name in missing:
        temporary = _stamp(root, name) + ".new"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(_wanted(root, name))
        os.replace(temporary, _stamp(root, name))
    _say("the environment is ready")


def find_python() -> str:
    """A Python that Tandem supports: the running one if it will do, else the newest on the path.

    Raises SetupFailed if there is none.
    """
    if OLDEST <= sys.version_info[:2] <= NEWEST and _works(sys.executable):
        return sys.executable
    for name in PYTHONS:
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK) and _works(path):
                return path
    wanted = " to ".join(".".join(map(str, version)) for version in (OLDEST, NEWEST))
    raise SetupFailed(f"no Python {wanted} with the modules venv and ensurepip is on the path; install one")


def _works(python: str) -> bool:
    """True if this interpreter starts, has a supported version and can make environments."""
    test = f"import sys, venv, ensurepip; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"
    try:
        return subprocess.run([python, "-I", "-c", test], stdout=-3, stderr=-3, check=False).returncode == 0
    except OSError:
        return False


def _call(command: list[str], remedy: str) -> None:
    # Standard output belongs to the command's own result, so progress goes to standard error.
    status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), check=False).returncode
    if status:
        raise SetupFailed(f"`{' '.join(command)}` ended with status {status}; {remedy}")


def _say(text: str) -> None:
    print(f"ctl: {text}", file=sys.stderr, flush=True)
