"""`ctl test`: run the tests of this clone."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from ...shared.errors import SupervisorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl test tests/supervisor -x"
EXITS = "that of pytest: 0 all passed; 1 some failed; 2 interrupted; 5 no test was found"
PASS_ON = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: all words go to pytest."""
    parser.usage = "ctl test [PYTEST ARGUMENTS]"


def run(options: argparse.Namespace) -> int:
    """Become pytest."""
    root = Path(__file__).resolve().parents[3]
    if not (root / "tests").is_dir():
        raise SupervisorError("there are no tests here: `test` works in a clone of the repository")
    if importlib.util.find_spec("pytest") is None:
        raise SupervisorError("pytest is not installed; `./ctl test` installs what the tests need")
    os.chdir(root)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *options.words])
