"""`ctl bench`: run the scripts that print the figures that documents quote."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ...shared.errors import SupervisorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

EXAMPLE = "ctl bench ops --json"
EXITS = "that of the script; without a name the scripts are listed"
PASS_ON = True


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options: the first word is the script, the others are its own."""
    parser.usage = "ctl bench [NAME [ARGUMENTS OF THE SCRIPT]]"


def run(options: argparse.Namespace) -> int:
    """List the scripts, or become one."""
    folder = Path(__file__).resolve().parents[3] / "benchmarks"
    scripts = {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}
    if not scripts:
        raise SupervisorError("there are no benchmarks here: `bench` works in a clone of the repository")
    if not options.words:
        for name, path in scripts.items():
            print(f"{name:<16}{summary(path)}")
        return 0
    name, *words = options.words
    if name not in scripts:
        raise SupervisorError(f"there is no benchmark {name!r} (there are {', '.join(scripts)})")
    os.execv(sys.executable, [sys.executable, str(scripts[name]), *words])


def summary(path: Path) -> str:
    """The first sentence of a script's docstring."""
    import ast

    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
