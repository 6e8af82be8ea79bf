"""Running code as another user of the machine: only root can."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NOBODY = 65534

_PRELUDE = """
import os, sys
import argparse, fcntl, gettext, hashlib, json, locale, logging, pwd, shutil, time
from tandem.shared.memory import layout
from tandem.shared.memory.control import Control
from tandem.shared.memory.processes import own_identity
from tandem.shared.memory.segments import create, segment_path
from tandem.supervisor import cli, lock
from tandem.supervisor.display import status
from tandem.supervisor.commands import (
    check, checkpoint, clean, down, instances, pause, reset, restart, resume, rollback, status, version
)
os.setgroups([])
os.setgid(int(sys.argv.pop(1)))
os.setuid(int(sys.argv.pop(1)))
"""
"""Everything is imported first: another user may not be able to read the environment's files."""


def need_root() -> None:
    """Skip the test unless it can become another user."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")


def start(code: str, *words: str, group: int = NOBODY, **options: object) -> subprocess.Popen[str]:
    """Start Python code as the user nobody, in that group; `words` are its sys.argv[1:]."""
    command = [sys.executable, "-c", _PRELUDE + code, str(group), str(NOBODY), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


def run(code: str, *words: str, group: int = NOBODY, **options: object) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    process = start(code, *words, group=group, **options)
    output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def ctl(*words: str, group: int = NOBODY, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command of ctl that needs no environment as the user nobody."""
    return run("sys.exit(cli.main(sys.argv[1:]))", *words, group=group, **options)
