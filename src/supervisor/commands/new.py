"""`ctl new`: a working application in a folder of its own, to be changed into another."""

from __future__ import annotations

import argparse
import keyword
import os
import shutil
import sys
import tempfile

EXAMPLE = "ctl new shop && cd shop && ctl up -d --instance shop --config config.yaml && python3 simulate.py"
EXITS = "0 it was made; 1 it could not be made; 2 the name is no name for an application"

TEMPLATES = os.path.join(os.path.dirname(os.path.dirname(__file__)), "templates")
SUFFIX = ".in"
"""Of the files there: they are no modules of this package."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="of the application, its module and its folder")
    parser.add_argument("--folder", metavar="DIR", default=".", help="where the folder NAME is made (default: here)")


def run(options: argparse.Namespace) -> int:
    """Make the folder."""
    name: str = options.name
    fault = fault_of(name)
    if fault:
        print(f"ctl: {name!r} {fault}", file=sys.stderr)
        return 2
    target = os.path.join(options.folder, name)
    if os.path.lexists(target):
        print(f"ctl: {target} is there already; choose another name, or remove it", file=sys.stderr)
        return 1
    if not os.path.isdir(options.folder):
        print(f"ctl: {options.folder} is no folder", file=sys.stderr)
        return 1
    # Made whole under another name: a folder that is there is one that works.
    temporary = tempfile.mkdtemp(prefix=f".{name}-", dir=options.folder)
    try:
        for file in sorted(os.listdir(TEMPLATES)):
            if file.endswith(SUFFIX):
                _write(file, temporary, name, target)
        os.chmod(temporary, 0o777 & ~_umask())
        os.rename(temporary, target)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    print(f"{target}: made; {os.path.join(target, 'README.md')} says how to start it")
    return 0


def fault_of(name: str) -> str:
    """Why an application cannot have this name; empty if it can."""
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        return "is not a module name: use letters, digits and underscores, as in `shop` or `night_shop`"
    if name in sys.stdlib_module_names:
        return "is a module of Python's own, which would be found first; choose another name"
    if name in ("tandem", "simulate", "test_application", "torch", "numpy", "yaml", "pytest"):
        return "is the name of a module that the application needs; choose another name"
    return ""


def _write(file: str, folder: str, name: str, target: str) -> None:
    with open(os.path.join(TEMPLATES, file), encoding="utf-8") as template:
        text = template.read()
    for word, meant in (("NAME", name), ("CTL", _ctl(target)), ("PYTHON", _python(target))):
        text = text.replace(word, meant)
    own = file.removesuffix(SUFFIX)
    own = f"{name}.py" if own == "application.py" else own
    with open(os.path.join(folder, own), "w", encoding="utf-8") as made:
        made.write(text)


def _ctl(target: str) -> str:
    """How the command that runs this is called from the new folder."""
    command = os.path.realpath(sys.argv[0])
    return os.path.relpath(command, target) if os.path.basename(command) == "ctl" else "tandem"


def _python(target: str) -> str:
    """The interpreter that has Tandem, from the new folder."""
    command = os.path.realpath(sys.argv[0])
    if os.path.basename(command) != "ctl":
        return "python3"
    return os.path.relpath(os.path.join(os.path.dirname(command), ".venv", "bin", "python"), target)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
